package cmd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"twinkey/pkg/config"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
)

// Settings is the file directory.yaml.
type Settings struct {
	Listen    config.TCPAddress `yaml:"listen" doc:"TCP address to serve on." default:":8702"`
	CA        string            `yaml:"ca" doc:"URL of the CA, which renews this directory's certificate; empty: nobody does." example:"https://ca.example:8700"`
	RenewAt   float64           `yaml:"renew-at" doc:"Part of its life after which the certificate is renewed." default:"0.66"`
	Heartbeat time.Duration     `yaml:"heartbeat" doc:"Longest silence on a watch, 5s at most; shorter tells routers sooner that the directory is gone." default:"4s"`
	Watchers  int               `yaml:"watchers" doc:"How many may watch at once." default:"4096"`
	Lockout   Lockout           `yaml:"lockout" doc:"When failed logins lock."`
	Password  Password          `yaml:"password" doc:"What guessing a password that a user has chosen must cost at least; routers of this version take 3 passes over 64MiB."`
}

// Password is its section on what guessing a password costs (Argon2id, RFC 9106).
type Password struct {
	Time   uint32      `yaml:"time" doc:"Passes." default:"3"`
	Memory config.Size `yaml:"memory" doc:"Memory." default:"64MiB"`
}

func (p Password) least() keybundle.Params {
	return keybundle.Params{Time: p.Time, MemoryKiB: uint32(p.Memory >> 10)} //nolint:gosec // checked to be small
}

// Lockout is its section on failed logins.
type Lockout struct {
	UserFailures   int           `yaml:"user-failures" doc:"Failures of one user within the window that lock the user." default:"10"`
	RouterFailures int           `yaml:"router-failures" doc:"Failures of all users of one router within the window that lock the router's logins." default:"100"`
	Window         time.Duration `yaml:"window" doc:"How long a failure counts." default:"15m"`
	Lock           time.Duration `yaml:"lock" doc:"Length of the first lock; each further one is twice as long." default:"1m"`
	MaxLock        time.Duration `yaml:"max-lock" doc:"Length that no lock exceeds." default:"1h"`
}

// loadSettings reads the file at path, or takes the defaults if there is none.
func loadSettings(path string) (Settings, error) {
	s, err := config.Load(path, Settings.check)
	if errors.Is(err, os.ErrNotExist) {
		return config.Parse(path, nil, Settings.check)
	}
	return s, err
}

func (s Settings) check() error {
	for _, c := range []struct {
		key string
		ok  bool
		why string
	}{
		{"renew-at", s.RenewAt > 0 && s.RenewAt < 1, "must lie between 0 and 1"},
		{"heartbeat", s.Heartbeat >= 100*time.Millisecond && s.Heartbeat <= 5*time.Second, "must be 100ms to 5s"},
		{"watchers", s.Watchers > 0, "must be at least 1"},
		{"lockout.user-failures", s.Lockout.UserFailures > 0, "must be at least 1"},
		{"lockout.router-failures", s.Lockout.RouterFailures >= s.Lockout.UserFailures, "must not be less than user-failures"},
		{"lockout.window", s.Lockout.Window > 0, "must be more than nothing"},
		{"lockout.lock", s.Lockout.Lock > 0, "must be more than nothing"},
		{"lockout.max-lock", s.Lockout.MaxLock >= s.Lockout.Lock, "must not be less than lock"},
		{"password.time", s.Password.Time <= keybundle.DefaultTime, fmt.Sprintf("must not be more than the %d that routers take: nobody could change a password", keybundle.DefaultTime)},
		{"password.memory", s.Password.Memory <= keybundle.DefaultMemoryKiB<<10, fmt.Sprintf("must not be more than the %s that routers take: nobody could change a password", config.Size(keybundle.DefaultMemoryKiB<<10))},
	} {
		if !c.ok {
			return config.Wrong(c.key, errors.New(c.why))
		}
	}
	return nil
}

func (l Lockout) policy() lockout.Policy {
	p := lockout.Default()
	p.UserFailures, p.RouterFailures, p.Window, p.Lock, p.MaxLock = l.UserFailures, l.RouterFailures, l.Window, l.Lock, l.MaxLock
	return p
}

// writeSettings makes the file at path say where the CA is, unless there is one.
func writeSettings(path, ca string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	_, err = fmt.Fprintf(f, "# Settings of twinkey-directory; every key: twinkey-directory serve --help\nca: %q\n", ca)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	return nil
}
