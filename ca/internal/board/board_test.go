package board

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPutAndAnswer(t *testing.T) {
	now := time.Unix(1000, 0)
	b := New(func() time.Time { return now })
	if err := b.Put("ra", "10.1.0.1", "tok_1", "tok_1.thumb-1"); err != nil {
		t.Fatal(err)
	}
	if got, ok := b.Answer("10.1.0.1", "tok_1"); !ok || got != "tok_1.thumb-1" {
		t.Errorf("%q, %v", got, ok)
	}
	for _, other := range []place{{"10.1.0.2", "tok_1"}, {"10.1.0.1", "tok_2"}} {
		if got, ok := b.Answer(other.identifier, other.token); ok {
			t.Errorf("%v: %q", other, got)
		}
	}
	if err := b.Put("rb", "10.1.0.1", "tok_1", "tok_1.thumb-2"); err == nil {
		t.Error("another router replaced it")
	}
	now = now.Add(life)
	if got, ok := b.Answer("10.1.0.1", "tok_1"); ok {
		t.Errorf("%q after its life", got)
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	b := New(time.Now)
	long := strings.Repeat("a", maxToken+1)
	for _, tt := range [][3]string{
		{"", "a", "a.b"}, {"ra", "", ".b"}, {"ra", "a", "b.c"}, {"ra", "a", "a."}, {"ra", "a", "a.b.c"}, {"ra", "a/../b", "a/../b.c"},
		{"ra", long, long + ".b"}, {"ra", "a", "a." + strings.Repeat("b", maxAnswer)}, {strings.Repeat("a", maxName+1), "a", "a.b"}, {"ra", "a", "a.b\n"},
	} {
		if err := b.Put("ra", tt[0], tt[1], tt[2]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", tt, err)
		}
	}
	if len(b.answers) > 0 {
		t.Errorf("kept: %v", b.answers)
	}
}

// A router can fill its own share and no more, and has it back when it is over.
func TestBoardIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	b := New(func() time.Time { return now })
	put := func(router string, n int) error {
		token := fmt.Sprintf("%s-%d", router, n)
		return b.Put(router, "10.1.0.1", token, token+".t")
	}
	for n := range ofRouter {
		if err := put("ra", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("ra", ofRouter); !errors.Is(err, ErrFull) {
		t.Errorf("one more than its share: %v", err)
	}
	if err := put("ra", 0); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for r := 0; len(b.answers) < inAll; r++ {
		for n := range ofRouter {
			if err := put(fmt.Sprintf("r%d", r), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := put("rz", 0); !errors.Is(err, ErrFull) {
		t.Errorf("on a full board: %v", err)
	}
	now = now.Add(life)
	if err := put("rz", 0); err != nil || len(b.answers) != 1 {
		t.Errorf("%v, %d are left", err, len(b.answers))
	}
}
