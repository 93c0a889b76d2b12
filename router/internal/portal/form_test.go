package portal

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

func TestForm(t *testing.T) {
	for name, tt := range map[string]struct {
		in            string
		ok            bool
		uid, password string
	}{
		"plain":               {"uid=alice&password=secret", true, "alice", "secret"},
		"the other way round": {"password=secret&uid=alice", true, "alice", "secret"},
		"escapes":             {"uid=al%69ce&p%61ssword=%26%3d%2B+%25", true, "alice", "&=+ %"},
		"UTF-8":               {"uid=alice&password=stra%C3%9Fe", true, "alice", "straße"},
		"a zero byte":         {"uid=alice&password=a%00b", true, "alice", "a\x00b"},
		"empty":               {"uid=&password=", true, "", ""},
		"no equals sign":      {"uid&password", true, "", ""},
		"= in the value":      {"uid=a&password=b=c", true, "a", "b=c"},
		"empty pairs":         {"&uid=a&&password=b&", true, "a", "b"},
		"nothing":             {"", false, "", ""},
		"one is missing":      {"uid=alice", false, "", ""},
		"twice":               {"uid=alice&password=x&uid=bob", false, "", ""},
		"twice, once empty":   {"uid=&password=x&uid=bob", false, "", ""},
		"unknown":             {"uid=alice&password=x&admin=1", false, "", ""},
		"half an escape":      {"uid=alice&password=%4", false, "", ""},
		"no escape":           {"uid=alice&password=%zz", false, "", ""},
		"semicolon":           {"uid=alice;password=x&password=y", false, "", ""},
		"JSON":                {`{"uid":"alice","password":"x"}`, false, "", ""},
	} {
		var uid, password []byte
		err := parseForm([]byte(tt.in), map[string]*[]byte{"uid": &uid, "password": &password})
		if (err == nil) != tt.ok || err == nil && (string(uid) != tt.uid || string(password) != tt.password) {
			t.Errorf("%s: %q, %q, %v", name, uid, password, err)
		}
	}
}

// With the body the password is gone: the values are parts of it.
func TestFormIsWiped(t *testing.T) {
	body := []byte("password=%73%65cret&uid=alice")
	var uid, password []byte
	if err := parseForm(body, map[string]*[]byte{"uid": &uid, "password": &password}); err != nil || string(password) != "secret" {
		t.Fatalf("%q, %v", password, err)
	}
	if bytes.Contains(body, []byte("cret&")) && bytes.Contains(body, []byte("%73")) {
		t.Errorf("what was decoded is there a second time: %q", body)
	}
	clear(body)
	if strings.Trim(string(password), "\x00") != "" {
		t.Errorf("left: %q", password)
	}
}

// What parses, parses the same by net/url.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"uid=alice&password=secret", "uid=a%20b&password=+", "uid=%&password=", "uid=a&uid=b&password=", "&&uid=a;b&password", "uid=a&password=%00%ff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		want, refused := url.ParseQuery(string(in))
		body := bytes.Clone(in)
		var uid, password []byte
		err := parseForm(body, map[string]*[]byte{"uid": &uid, "password": &password})
		if err != nil {
			if refused == nil && len(want) == 2 && len(want["uid"]) == 1 && len(want["password"]) == 1 {
				t.Fatalf("%q is refused", in)
			}
			return
		}
		if refused != nil || len(want) != 2 || len(want["uid"]) != 1 || len(want["password"]) != 1 {
			t.Fatalf("%q: %q and %q, net/url has %v, %v", in, uid, password, want, refused)
		}
		if want.Get("uid") != string(uid) || want.Get("password") != string(password) {
			t.Fatalf("%q: %q and %q, net/url has %v", in, uid, password, want)
		}
	})
}
