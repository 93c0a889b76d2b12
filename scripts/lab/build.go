//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"twinkey/pkg/netlab"
)

// BinEnv names a directory with the three binaries; where it is set nothing is built.
const BinEnv = "TWINKEY_BIN"

// The programs of the company.
const (
	CA        = "twinkey-ca"
	Directory = "twinkey-directory"
	Router    = "twinkey-router"
)

// buildTags leave database drivers out of the CA that it does not use.
const buildTags = "nomysql,nopgx,nobadger"

// packages says where each program is built from.
var packages = map[string]string{CA: "./ca", Directory: "./directory", Router: "./router"}

// Prepare builds the binaries and moves the program into a laboratory: see netlab.EnsurePrivileges for what
// that means. It must be called before anything else is done. In the process that was started it returns only if there is
// an error.
func Prepare() error {
	if netlab.Outside() && os.Getenv(BinEnv) == "" {
		bin, err := build()
		if err != nil {
			return err
		}
		if err := os.Setenv(BinEnv, bin); err != nil {
			return fmt.Errorf("passing on where the binaries are: %w", err)
		}
	}
	if err := netlab.EnsurePrivileges(); err != nil {
		return err
	}
	return netlab.CheckTUN()
}

// build runs go build, which does nothing where the binaries are up to date.
func build() (bin string, err error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go where the module is: %w (hint: run it inside the module, or name a directory with the binaries in %s)", err, BinEnv)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	bin = filepath.Join(root, "bin")
	for name, pkg := range packages {
		cmd := exec.Command("go", "build", "-tags", buildTags, "-o", filepath.Join(bin, name), pkg) //nolint:gosec // constants
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return bin, nil
}

// binary is the path of one of the programs.
func binary(name string) (string, error) {
	dir := os.Getenv(BinEnv)
	if dir == "" {
		return "", errors.New("no binaries: Prepare was not called")
	}
	path := filepath.Join(dir, name)
	if _, err := exec.LookPath(path); err != nil {
		return "", fmt.Errorf("looking for %s: %w (hint: make build)", name, err)
	}
	return filepath.Abs(path)
}
