package cmd

import (
	"testing"

	"twinkey/pkg/config"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
)

func TestSettingsAreDocumented(t *testing.T) {
	if keys := config.Undocumented[Settings](); keys != nil {
		t.Errorf("without doc: %v", keys)
	}
	s, err := loadSettings(t.TempDir() + "/none.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Password.least(), (keybundle.Params{Time: keybundle.DefaultTime, MemoryKiB: keybundle.DefaultMemoryKiB}); got.Weaker(want) || want.Weaker(got) {
		t.Errorf("passwords must cost %+v, routers take %+v", got, want)
	}
	if got, want := s.Lockout.policy(), lockout.Default(); got != want {
		t.Errorf("defaults %+v, the store's are %+v", got, want)
	}
}
