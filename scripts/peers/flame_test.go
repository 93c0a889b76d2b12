//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

const stacks = `twinkey-router 
	ffffffff8161cc10 copy_to_iter ([kernel.kallsyms])
	ffffffff8161f693 tun_do_read+0x12 ([kernel.kallsyms])
	          49e6a0 twinkey/pkg/tun.(*queue).Read (/run/x/twinkey-router)
	          49e6a0 twinkey/router/internal/engine.(*worker).run (/run/x/twinkey-router)

twinkey-router 
	          49e6a0 twinkey/proto/esp/gcm.sealWide (/run/x/twinkey-router (deleted))
	          49e6a0 twinkey/router/internal/engine.(*worker).run (/run/x/twinkey-router)

twinkey-router 
	          49e6a0 recursive (/run/x/twinkey-router)
	          49e6a0 recursive (/run/x/twinkey-router)
	          49e6a0 twinkey/router/internal/engine.(*worker).run (/run/x/twinkey-router)

twinkey-router 
	          49e6a0 [unknown] ([unknown])
`

func TestFlame(t *testing.T) {
	root, err := readStacks(strings.NewReader(stacks))
	check(t, err)
	names, share := root.inclusive()
	for name, want := range map[string]float64{
		"both routers": 1, "engine.(*worker).run": 0.75, "tun.(*queue).Read": 0.25, "tun_do_read": 0.25, "recursive": 0.25, "gcm.sealWide": 0.25,
	} {
		if got := share[name]; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if names[0] != "both routers" || names[1] != "engine.(*worker).run" {
		t.Errorf("largest first: %v", names)
	}
	svg := root.flame("a <title>")
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for class, want := range map[string]int{"k": 2, "c": 1, "o": 2, "g": 4} {
		if got := strings.Count(svg, `class="`+class+`"`); got != want {
			t.Errorf("%d of %q, want %d", got, class, want)
		}
	}
}

func TestNoStacks(t *testing.T) {
	if _, err := readStacks(strings.NewReader("")); err == nil {
		t.Error("a picture of nothing")
	}
}
