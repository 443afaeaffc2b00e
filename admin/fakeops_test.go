package admin

import "context"

// fakeOps answers what the operations of the program ask that fake does not know.
type fakeOps struct{ *auditBook }

func (fakeOps) TestAcl(context.Context, AclTest) ([]AclCaseResult, error) {
	return []AclCaseResult{{}}, nil
}
func (fakeOps) ListAclVersions(context.Context) ([]AclVersion, error) { return []AclVersion{{}}, nil }
func (fakeOps) RollbackAcl(context.Context, AclRollback) (AclRolledBack, error) {
	return AclRolledBack{}, nil
}
func (fakeOps) AddBan(context.Context, BanRequest) (Change, error)    { return Change{Index: 1}, nil }
func (fakeOps) ListBans(context.Context) ([]Ban, error)               { return []Ban{{}}, nil }
func (fakeOps) RemoveBan(context.Context, BanRequest) (Change, error) { return Change{Index: 1}, nil }
func (fakeOps) CAStatus(context.Context) (CAStatus, error)            { return CAStatus{}, nil }
func (fakeOps) RotateCA(context.Context, CARequest) (CAResult, error) { return CAResult{}, nil }
func (fakeOps) RetireCA(context.Context, CARequest) (CAResult, error) { return CAResult{}, nil }
func (fakeOps) Checkup(context.Context) (Checkup, error)              { return Checkup{}, nil }
func (fakeOps) Verify(context.Context) (Verification, error)          { return Verification{}, nil }
func (fakeOps) KickClient(context.Context, string) (Kicked, error)    { return Kicked{Node: "a"}, nil }
func (fakeOps) SetRetained(context.Context, RetainedSet) (Change, error) {
	return Change{Index: 1}, nil
}

func (fakeOps) ListRetained(context.Context, RetainedRequest) ([]RetainedMessage, error) {
	return []RetainedMessage{{Topic: "t", Payload: []byte("x")}}, nil
}

func (fakeOps) ClearRetained(context.Context, string) (RetainedCleared, error) {
	return RetainedCleared{Cleared: 1}, nil
}

func (fakeOps) ShowSession(_ context.Context, client string) (SessionDetail, error) {
	return SessionDetail{Session: Session{Client: client}, Filters: []SessionSubscription{{Filter: "a"}}}, nil
}

func (fakeOps) PurgeSession(context.Context, string) (SessionPurged, error) {
	return SessionPurged{Purged: 1}, nil
}

func (fakeOps) Top(context.Context) (Top, error) {
	return Top{Nodes: []TopNode{{Node: "a", ByClient: map[string]int64{"c": 1}}}}, nil
}

func (fakeOps) Trace(_ context.Context, _ TraceRequest, emit func([]TraceStep) error) error {
	return emit([]TraceStep{{Node: "a", Step: "accepted", Topic: "t"}})
}
