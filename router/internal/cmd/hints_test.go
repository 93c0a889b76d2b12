package cmd

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/tun"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/station"
	"twinkey/router/internal/voluntary"
)

// Whatever a client's login ends with, the person in front of the machine is told what to do.
func TestEveryFailureOfAClientHasAHint(t *testing.T) {
	all := []error{station.ErrNoRoot, station.ErrNoRouter, station.ErrAnother, station.ErrCheap, station.ErrEnded, station.ErrAgain, station.ErrNoMap, sealedlogin.ErrStatement, sealedlogin.ErrExpired, sealedlogin.ErrAnswer, admin.ErrInUse, tun.ErrInUse, os.ErrPermission,
		twincert.ErrExpired, twincert.ErrNotYetValid, twincert.ErrRevoked, keybundle.ErrOpen, keybundle.ErrSuccessor, keybundle.ErrParams, errors.New("anything else"),
		&voluntary.Error{Code: "of a newer router"}}
	for code := range clientCodes {
		all = append(all, &voluntary.Error{Code: code})
	}
	for _, why := range all {
		for how, failed := range map[string]func(string, error) error{"by password": clientFailed, "by keys": ownFailed} {
			err := failed("logging in alice", fmt.Errorf("logging in: %w", why))
			if e, ok := errors.AsType[*cli.Error](err); !ok || e.Hint == "" || !errors.Is(err, why) {
				t.Errorf("%s, %v: %+v", how, why, err)
			}
		}
	}
	own := cli.Fail(cli.ExitUsage, "reading the password", errors.New("it is empty"), "its own")
	if e, ok := errors.AsType[*cli.Error](clientFailed("logging in alice", own)); !ok || e.Hint != "its own" || e.Code != cli.ExitUsage {
		t.Errorf("what has a hint: %+v", e)
	}
	if err := clientFailed("logging in alice", nil); err != nil {
		t.Error(err)
	}
}
