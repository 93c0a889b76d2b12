//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// A person watches the calls in a terminal and quits.
func TestTopInATerminal(t *testing.T) {
	needs(t, "script", "bsdutils")
	c := company(t)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	top := strings.Join(c.RouterCommand(lab.SiteA, "top", "--interval", "100ms"), " ")
	cmd := c.RA.Command(ctx, "script", "-qec", "stty rows 30 cols 160; exec "+top, "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=xterm")
	keys, err := cmd.StdinPipe()
	check(t, err)
	screen, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	var seen bytes.Buffer
	pressed := false
	for buf := make([]byte, 4096); ; {
		n, err := screen.Read(buf)
		seen.Write(buf[:n])
		if s := seen.String(); !pressed && strings.Contains(s, "aes256-gcm") && strings.Contains(s, "bit/s") {
			_, _ = io.WriteString(keys, "q") // it ends, or the deadline ends the test
			pressed = true
		}
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, after\n%q", err, seen.String())
	}
	for _, want := range []string{"router ra", "(site)", "order: traffic", "\x1b[?1049l"} { // the last one puts the screen back
		if !strings.Contains(seen.String(), want) {
			t.Errorf("not seen: %q in\n%q", want, seen.String())
		}
	}
}
