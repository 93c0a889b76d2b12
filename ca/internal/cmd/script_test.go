package cmd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	caclient "twinkey/ca/client"
	"twinkey/pkg/identity"
)

// The scripts have besides the two binaries:
//
//	ready ADDR              waits until something listens there
//	router NAME             enrols a router with the token in the file NAME.token
//	fingerprint FILE        sets $FP from the output of init
//	token FILE              sets $TOKEN from the output of a token command
func TestScripts(t *testing.T) {
	bin := directoryBinary(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			for _, name := range []string{"CA", "DIRECTORY"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				_, port, err := net.SplitHostPort(l.Addr().String())
				if err != nil {
					return err
				}
				e.Setenv(name, l.Addr().String())
				e.Setenv(name+"_PORT", port)
				if err := l.Close(); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					network := "tcp"
					if strings.Contains(args[0], "/") {
						network = "unix"
					}
					if c, err := net.Dial(network, args[0]); err == nil {
						_ = c.Close()
						return
					}
				}
				ts.Fatalf("nothing listens at %s", args[0])
			},
			"fingerprint": func(ts *testscript.TestScript, _ bool, args []string) {
				_, after, _ := strings.Cut(ts.ReadFile(args[0]), "(SHA-256): ")
				ts.Setenv("FP", strings.Fields(after)[0])
			},
			"token": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("TOKEN", strings.Fields(ts.ReadFile(args[0]))[0])
			},
			"router": func(ts *testscript.TestScript, _ bool, args []string) {
				b, _, err := caclient.Enroll(t.Context(), "https://"+ts.Getenv("CA"), ts.Getenv("FP"), ts.Getenv("TOKEN"), caclient.Options{})
				ts.Check(err)
				_, err = identity.Create(filepath.Join(ts.MkAbs("."), args[0]), b)
				ts.Check(err)
			},
		},
	})
}
