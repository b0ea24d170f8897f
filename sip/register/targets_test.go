package register

import "testing"

// The name of the P-CSCFs has moved: who is registered, or tries to be, does so again; whom the
// network does not want does not.
func TestTargetsMove(t *testing.T) {
	for state, want := range map[State]bool{Registered: true, Registering: true, Unregistered: true, Rejected: false, AuthFailed: false} {
		c, err := New(Options{Domain: "ims.test", IMPI: "u@ims.test", IMPU: "sip:u@ims.test", Contact: "sip:u@192.0.2.1:5060", Password: "p",
			Targets: []string{"192.0.2.7:5060"}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.m.state = state
		if c.SetTargets([]string{"192.0.2.7:5060", "192.0.2.8:5060"}) {
			t.Errorf("%s: the one in use is still there", state)
		}
		if got := c.SetTargets([]string{"192.0.2.9:5060"}); got != want || c.State().Target == "192.0.2.7:5060" && state != Registered {
			t.Errorf("%s: register again %v, want %v; now at %s", state, got, want, c.State().Target)
		}
	}
}
