package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// importProposals is how many changes of an import are under way at once: as many
// as a pack takes, so that the log has one entry for so many users and the disks
// one write.
const importProposals = 64

// ImportUsers implements admin.Users.
func (b backend) ImportUsers(ctx context.Context, r admin.UserImport) (admin.UserImportResult, error) {
	out := admin.UserImportResult{Change: admin.Change{NotApplied: []string{}}}
	if err := checkImport(r); err != nil {
		return out, invalid(err)
	}
	puts, err := b.n.planImport(ctx, r, &out)
	if err != nil {
		return out, adminError(err)
	}
	if len(puts) == 0 {
		return out, nil
	}
	out.Index, err = b.n.proposeAll(ctx, puts)
	if err != nil {
		return out, adminError(fmt.Errorf("not all users were imported, import the same again: %w", err))
	}
	out.Change, err = b.everywhere(ctx, out.Index)
	return out, err
}

// checkImport looks at every user before any is changed.
func checkImport(r admin.UserImport) error {
	if n := len(r.Users); n > admin.MaxImport {
		return fmt.Errorf("%d users are too many for one import: send at most %d", n, admin.MaxImport)
	}
	var errs []error
	seen := make(map[string]bool, len(r.Users))
	for _, e := range r.Users {
		switch {
		case auth.ValidUser(e.Name) != nil:
			errs = append(errs, auth.ValidUser(e.Name))
		case seen[e.Name]:
			errs = append(errs, fmt.Errorf("user %q is there twice: keep one", e.Name))
		case (e.Hash == "") == (len(e.Password) == 0):
			errs = append(errs, fmt.Errorf("user %q needs a password or the hash of one, and not both", e.Name))
		case e.Hash != "" && auth.ValidHash(e.Hash) != nil:
			errs = append(errs, fmt.Errorf("user %q: %w", e.Name, auth.ValidHash(e.Hash)))
		}
		seen[e.Name] = true
	}
	if r.Roles != nil {
		for _, role := range *r.Roles {
			errs = append(errs, auth.ValidRole(role))
		}
	}
	return errors.Join(errs...)
}

// planImport returns the changes that the import makes, and counts them. Hashes
// are computed as many at a time as passwords are checked, so that an import
// leaves the other cores to the clients.
func (n *Node) planImport(ctx context.Context, r admin.UserImport, out *admin.UserImportResult) ([]*logpb.Item, error) {
	policy := n.store.Policy()
	hashes, scrams := make([]string, len(r.Users)), make([]string, len(r.Users))
	err := inParallel(ctx, len(r.Users), n.hashWorkers(), func(_ context.Context, i int) (err error) {
		e := r.Users[i]
		if hashes[i] = e.Hash; e.Hash == "" {
			u, _ := policy.User(e.Name)
			if hashes[i], err = n.hashUnlessSame(u.Hash, e.Password); hashes[i] != u.Hash {
				put := &logpb.UserPut{Name: e.Name}
				n.scramInto(put, e.Password)
				scrams[i] = put.Scram
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var items []*logpb.Item
	for i, e := range r.Users {
		u, known := policy.User(e.Name)
		put := &logpb.UserPut{Name: e.Name, Hash: &hashes[i], Scram: scrams[i]}
		if r.Roles != nil {
			put.Roles, put.SetRoles = *r.Roles, true
		}
		switch {
		case !known:
			out.Added++
		case u.Hash == hashes[i] && (r.Roles == nil || slices.Equal(u.Roles, *r.Roles)):
			out.Unchanged++
			continue
		default:
			out.Changed++
		}
		items = append(items, &logpb.Item{Kind: &logpb.Item_UserPut{UserPut: put}})
	}
	return items, nil
}

// hashUnlessSame returns the hash that is there if it is of the password: a new
// one would send the user's clients away.
func (n *Node) hashUnlessSame(old string, password []byte) (string, error) {
	if old != "" {
		if same, err := auth.Verify(old, password); err == nil && same {
			return old, nil
		}
	}
	return auth.Hash(password, n.hashCost())
}

// proposeAll proposes the items, not in order, and returns the index of the last.
func (n *Node) proposeAll(ctx context.Context, items []*logpb.Item) (uint64, error) {
	indexes := make([]uint64, len(items))
	err := inParallel(ctx, len(items), importProposals, func(ctx context.Context, i int) error {
		r, err := n.proposeResult(ctx, items[i])
		indexes[i] = r.Pos.Index()
		return err
	})
	return slices.MaxFunc(indexes, cmp.Compare[uint64]), err
}

// inParallel calls f for 0 to n-1 on so many goroutines, and returns the first
// error when all have ended. After an error no more are called.
func inParallel(ctx context.Context, n, workers int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range min(n, workers) {
		all.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}
