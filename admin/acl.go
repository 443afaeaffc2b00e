package admin

import (
	"context"
	"time"
)

// AclHistory is the versions of the ACLs, and the judging of rules before they are
// set.
type AclHistory interface {
	// TestAcl answers questions by the rules in force, or by others in the place of
	// some of them.
	TestAcl(ctx context.Context, t AclTest) ([]AclCaseResult, error)
	// ListAclVersions returns those that are kept, the oldest first.
	ListAclVersions(ctx context.Context) ([]AclVersion, error)
	// RollbackAcl makes the ACLs, or those of one subject, what they were at a
	// version: as a new version, all at once, unless somebody changes them meanwhile.
	RollbackAcl(ctx context.Context, r AclRollback) (AclRolledBack, error)
}

// AclCert are the names of a client's certificate that rules may use.
type AclCert struct {
	CN  string `json:"cn,omitempty"`
	O   string `json:"o,omitempty"`
	OU  string `json:"ou,omitempty"`
	DNS string `json:"dns,omitempty"`
}

// MaxAclCases is how many cases one AclTest takes.
const MaxAclCases = 10_000

// AclTest asks whether clients may do what they should, and may not what they should
// not. Rules, if any, stand in the place of what their subjects have now.
type AclTest struct {
	Cases []AclCase `json:"cases"`
	Rules []Acl     `json:"rules,omitempty"`
}

// AclCase is one question with the answer that is expected.
type AclCase struct {
	AclQuestion
	Allowed bool `json:"allowed"`
}

// AclCaseResult is what became of a case.
type AclCaseResult struct {
	AclAnswer
	Passed bool `json:"passed"`
}

// AclVersion is one change of the ACLs.
type AclVersion struct {
	Version uint64      `json:"version"`
	At      time.Time   `json:"at"` // by the log's clock
	Actor   string      `json:"actor"`
	Changes []AclChange `json:"changes"`
}

// AclChange is the rules of a subject before and after.
type AclChange struct {
	Subject string   `json:"subject"`
	Before  []string `json:"before"`
	After   []string `json:"after"`
}

// AclRollback names the version; Subject, if not empty, the only one to change.
type AclRollback struct {
	Version uint64 `json:"version"`
	Subject string `json:"subject,omitempty"`
}

// AclRolledBack tells what was changed. Without changes all was so already.
type AclRolledBack struct {
	Changes []AclChange `json:"changes"`
	Change
}

// TestAcl is AclHistory.TestAcl.
func (c *Client) TestAcl(ctx context.Context, t AclTest) ([]AclCaseResult, error) {
	return call[[]AclCaseResult](ctx, c, opAclTest, t)
}

// ListAclVersions is AclHistory.ListAclVersions.
func (c *Client) ListAclVersions(ctx context.Context) ([]AclVersion, error) {
	return call[[]AclVersion](ctx, c, opAclHistory, nothing{})
}

// RollbackAcl is AclHistory.RollbackAcl.
func (c *Client) RollbackAcl(ctx context.Context, r AclRollback) (AclRolledBack, error) {
	return call[AclRolledBack](ctx, c, opAclRollback, r)
}
