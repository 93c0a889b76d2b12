package keylog_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"twinkey/pkg/identity"
	"twinkey/proto/esp"
	"twinkey/proto/secret"
	"twinkey/router/internal/keylog"
)

func key(s esp.Suite) secret.Key { return secret.New(bytes.Repeat([]byte{7}, s.KeyLen())) }

func TestModeAndLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "esp_sa")
	for range 2 { // the second time it is appended to
		l, err := keylog.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := l.Log(0x10000+uint32(i), esp.AES256GCM, key(esp.AES256GCM)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != 40 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, `"`) || !strings.HasSuffix(l, `"`) || strings.Count(l, "0x000100") != 1 {
			t.Errorf("line %q", l)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keylog.Open(open); !errors.Is(err, identity.ErrPermissions) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := keylog.Open(link); err == nil {
		t.Error("keys would be written where somebody else's link points")
	}
	if _, err := keylog.Open(dir); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := keylog.Open("/dev/null"); err == nil {
		t.Error("a device was opened")
	}
}

func TestNilLogsNothing(t *testing.T) {
	var l *keylog.File
	if err := l.Log(1, esp.AES256GCM, key(esp.AES256GCM)); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// tshark takes the file as its table esp_sa as it is, with a line of every suite.
func TestTsharkTakesTheTable(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		skip(t, "needs tshark (apt install tshark)")
	}
	config := t.TempDir()
	if err := os.Mkdir(filepath.Join(config, "wireshark"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := keylog.Open(filepath.Join(config, "wireshark", "esp_sa"))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range esp.Suites() {
		if err := l.Log(0x1000_0000+uint32(i), s, key(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	pcap := filepath.Join(config, "empty.pcap")
	head := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 101, 0, 0, 0}
	if err := os.WriteFile(pcap, head, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), tshark, "-r", pcap)
	c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+config, "HOME="+config)
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), "esp_sa") {
		t.Errorf("tshark: %v\n%s", err, out)
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}
