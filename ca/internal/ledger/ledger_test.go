package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestIntentsAreAQueueAndTheirEffectsComeWithTheirEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	for _, what := range []string{"a", "b", "c"} {
		in := &Intent{Kind: KindIssue, What: what, Effects: Effects{Users: []User{{UID: what}}, Certs: []Cert{{Serial: "1" + what}}}}
		if err := l.Update(func(tx *Tx) error { return tx.AddIntent(in) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path)
	defer func() { _ = l.Close() }()
	refused := errors.New("refused")
	err := l.Update(func(tx *Tx) error {
		queue, err := tx.Intents()
		if err != nil || len(queue) != 3 || queue[0].What != "a" || queue[2].What != "c" {
			t.Errorf("queue %v, %v", queue, err)
		}
		if err := tx.Take(queue[0].Effects); err != nil {
			return err
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
	if err := l.Update(func(tx *Tx) error {
		if _, ok, _ := tx.User("a"); ok {
			t.Error("a transaction that was refused left something")
		}
		queue, err := tx.Intents()
		if err != nil {
			return err
		}
		return errors.Join(tx.Take(queue[1].Effects), tx.DropIntent(queue[1].Number))
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.View(func(tx *Tx) error {
		users, err := tx.Users()
		queue, qerr := tx.Intents()
		if len(users) != 1 || users[0].UID != "b" || len(queue) != 2 || queue[1].What != "c" {
			t.Errorf("users %v, queue %v", users, queue)
		}
		return errors.Join(err, qerr)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	start := time.Now()
	// flock belongs to the open file, not to the process: a second open stands for one.
	if _, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %s to say so", d)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNotALedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "nowhere", "ledger.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// skip skips, or fails where nothing may be left out.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		skip(t, "needs root that may mount: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	l := open(t, filepath.Join(dir, "ledger.db"))
	defer func() { _ = l.Close() }()
	var n int
	var err error
	for err == nil && n < 10000 {
		err = l.Update(func(tx *Tx) error {
			return tx.Take(Effects{Certs: []Cert{{Serial: time.Duration(n).String(), DER: make([]byte, 4096)}}})
		})
		n++
	}
	if !errors.Is(err, ErrStorage) {
		t.Fatalf("after %d: %v", n, err)
	}
	count := func() (certs int) {
		if err := l.View(func(tx *Tx) error {
			all, err := tx.Certs()
			certs = len(all)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return certs
	}
	if got := count(); got != n-1 {
		t.Errorf("%d certificates were acknowledged, %d are there", n-1, got)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	if err := l.Update(func(tx *Tx) error { return tx.Take(Effects{Certs: []Cert{{Serial: "after"}}}) }); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if got := count(); got != n {
		t.Errorf("%d certificates, want %d", got, n)
	}
}

// What was written before times and ends were noted is read, as of users and logins of whom nothing of that is known; a user's logins are found,
// and nobody else's.
func TestLogins(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	defer func() { _ = l.Close() }()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	err := l.Update(func(tx *Tx) error {
		return errors.Join(
			tx.tx.Bucket(bucketUsers).Put([]byte("alice"), []byte(`{"uid":"alice","group":"staff","serial":"1","source":"wifi","created":"2026-01-02T03:04:05Z"}`)),
			tx.tx.Bucket(bucketLogins).Put([]byte("alice/ra"), []byte(`{"uid":"alice","router":"ra","source":"wifi","state":"AQ==","time":"2026-01-02T03:04:05Z"}`)),
			tx.tx.Bucket(bucketCalls).Put([]byte("wifi/ra/1/1"), []byte(`{"source":"wifi","name":"ra/1/1","uid":"alice","router":"ra","run":"1","since":"2026-01-02T03:04:05Z","heard":"2026-01-02T03:04:05Z"}`)),
			tx.PutLogin(Login{UID: "alice", Router: "rb", Source: "wifi", Session: time.Hour, Time: at}),
			tx.PutLogin(Login{UID: "alice2", Router: "ra", Source: "wifi", Time: at}),
			tx.PutLogin(Login{UID: "al", Router: "ra", Source: "wifi", Time: at}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.View(func(tx *Tx) error {
		u, ok, err := tx.User("alice")
		if err != nil || !ok || !u.Bound.IsZero() || !u.Active() {
			t.Errorf("%+v, %v", u, err)
		}
		if c, ok, err := tx.OpenCall("wifi", "ra/1/1"); err != nil || !ok || !c.Since.Equal(at) || !c.Login.IsZero() {
			t.Errorf("%+v, %v", c, err)
		}
		got, err := tx.Logins("alice")
		if len(got) != 2 || got[0].Router != "ra" || got[0].Session != 0 || !got[0].Time.Equal(at) || len(got[0].State) != 1 || got[1].Router != "rb" || got[1].Session != time.Hour {
			t.Errorf("%+v", got)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A ledger of before orders were noted is opened, and knows of none; what is noted is there when it is opened again.
func TestOrders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	if err := errors.Join(l.Update(func(tx *Tx) error { return tx.tx.DeleteBucket(bucketOrders) }), l.Close()); err != nil {
		t.Fatal(err)
	}
	want := Order{Source: "wifi", UID: "alice", Said: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Heard: [][]byte{{1}, {2}}, Done: true}
	l = open(t, path)
	err := l.Update(func(tx *Tx) error {
		if o, ok, err := tx.Order("wifi", "alice"); ok || err != nil {
			t.Errorf("%+v, %v", o, err)
		}
		return tx.PutOrder(want)
	})
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	l = open(t, path)
	defer func() { _ = l.Close() }()
	if err := l.View(func(tx *Tx) error {
		if o, ok, err := tx.Order("wifi", "alice"); !ok || err != nil || !reflect.DeepEqual(o, want) {
			t.Errorf("%+v, %v", o, err)
		}
		_, ok, err := tx.Order("ldap", "alice")
		if ok {
			t.Error("another source's")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
