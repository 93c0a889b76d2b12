package appliance

import (
	"errors"
	"testing"

	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/native"
)

// A call is placed when the turn is over, and keys of a call that did not come up are wiped.
func TestPlace(t *testing.T) {
	errNo := errors.New("no")
	for name, tt := range map[string]struct{ fetch, call error }{"up": {}, "no keys": {fetch: errNo}, "no call": {call: errNo}} {
		inTurn, placed := false, false
		control, data := secret.New([]byte("control")), secret.New([]byte("data"))
		turn := func(f func() error) error {
			inTurn = true
			defer func() { inTurn = false }()
			return f()
		}
		c, err := place(turn, func() (cred native.Credentials, err error) {
			if !inTurn {
				t.Errorf("%s: fetched out of turn", name)
			}
			cred.Control.Private, cred.Data.Private = control, data
			return cred, tt.fetch
		}, func(native.Credentials) (*calls.Call, error) {
			if placed = true; inTurn {
				t.Errorf("%s: it has its turn while it waits for the far site", name)
			}
			if tt.call != nil {
				return nil, tt.call
			}
			return &calls.Call{}, nil
		})
		if want := errors.Join(tt.fetch, tt.call); (err != nil) != (want != nil) || (c != nil) != (want == nil) || placed != (tt.fetch == nil) {
			t.Errorf("%s: %v, %v, placed: %v", name, c, err, placed)
		}
		wiped := string(control.Bytes()) != "control" && string(data.Bytes()) != "data"
		if wiped != (tt.call != nil) {
			t.Errorf("%s: wiped: %v", name, wiped)
		}
	}
}
