package config_test

import (
	"strings"
	"testing"

	"twinkey/pkg/config"
)

func TestTCPAddress(t *testing.T) {
	for in, want := range map[string]string{ // the reason; empty: it is taken
		":8700":               "",
		"192.0.2.10:8700":     "",
		"127.0.0.1:0":         "",
		"[2001:db8::1]:8700":  "",
		"[fe80::1%eth0]:8700": "",
		"hq.example:8700":     "",
		"localhost:65535":     "",
		"":                    "missing port",
		"foo":                 "missing port",
		"8700":                "missing port",
		"2001:db8::1:8700":    "too many colons",
		"[2001:db8::1:8700":   "missing ']'",
		":":                   `"" is no port`,
		":99999":              `"99999" is no port`,
		":-1":                 `"-1" is no port`,
		"192.0.2.10:https":    `"https" is no port`,
		"192.0.2.256:8700":    `"192.0.2.256" is no address`,
		"192.0.2:8700":        `"192.0.2" is no address`,
		"https://hq:8700":     "too many colons",
		"hq example:8700":     `"hq example" is no address`,
	} {
		a := config.TCPAddress("before")
		err := a.UnmarshalText([]byte(in))
		if want == "" {
			if err != nil || string(a) != in {
				t.Errorf("%q: %q, %v", in, a, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "such as 192.0.2.10:8700") {
			t.Errorf("%q: %v, want %q and an example in it", in, err, want)
		}
		if a != "before" {
			t.Errorf("%q was refused and taken: %q", in, a)
		}
	}
}
