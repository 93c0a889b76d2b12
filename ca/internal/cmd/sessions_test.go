package cmd

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/api"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

// released are a user's certificate and data key as a router gets them from the directory.
func (c *company) released(d *client.Client, uid string) (*twincert.Certificate, *ecdh.PrivateKey) {
	c.Helper()
	params, err := d.LoginParams(c.Context(), uid)
	if err != nil {
		c.Fatal(err)
	}
	proof, err := keybundle.Derive([]byte("password of "+uid), params.Params)
	if err != nil {
		c.Fatal(err)
	}
	r, err := d.Release(c.Context(), uid, proof.Auth)
	if err != nil {
		c.Fatal(err)
	}
	keys, err := keybundle.Open(r.Sealed, proof.Seal, r.Certificate)
	if err != nil {
		c.Fatal(err)
	}
	cert, err := twincert.Parse(r.Certificate)
	if err != nil {
		c.Fatal(err)
	}
	data, err := ecdh.X25519().NewPrivateKey(keys.Data.Bytes())
	if err != nil {
		c.Fatal(err)
	}
	return cert, data
}

// The end of a session, told over the wire to the real CA and by it to the real directory: by the router that held the
// user's key, and by none whose scope does not take the user in.
func TestEndOfASession(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	berlin, d := c.router("berlin", "10.1.0.0/24")
	tok := c.token("router", "token", "paris", "--prefix", "10.2.0.0/24", "--scope", "group:sales")
	b, _, err := caclient.Enroll(t.Context(), "https://"+c.caAddr, c.fingerprint, tok, caclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	paris, err := identity.Create(filepath.Join(c.dir, "paris"), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	cert, data := c.released(d, "alice")
	url := "https://" + c.caAddr
	ended := func(id *identity.Identity) ([]string, error) {
		k, err := caclient.FetchCloseKey(t.Context(), url, id)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := caclient.CloseProof(data, k, id.Name(), cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		return caclient.Close(t.Context(), url, id, []caclient.Closed{{Serial: cert.Serial.String(), Proof: proof}})
	}
	// Paris has stolen alice's key, and may not revoke her all the same.
	if refused, err := ended(paris); err != nil || !slices.Equal(refused, []string{cert.Serial.String()}) {
		t.Errorf("a router out of scope: refused %v, %v", refused, err)
	}
	if err := c.login(t.Context(), d, "alice"); err != nil {
		t.Errorf("login: %v", err)
	}
	caID, err := identity.Load(filepath.Join(c.dir, "directory", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := caclient.Close(t.Context(), url, caID, []caclient.Closed{{Serial: "1", Proof: make([]byte, 32)}}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("the directory ends sessions: %v", err)
	}
	if _, err := caclient.Close(t.Context(), url, berlin, []caclient.Closed{{Serial: "x", Proof: make([]byte, 32)}}); !errors.Is(err, caclient.ErrInvalid) {
		t.Errorf("a serial that is none: %v", err)
	}
	if refused, err := ended(berlin); err != nil || len(refused) > 0 {
		t.Fatalf("refused %v, %v", refused, err)
	}
	revs, err := d.Revoked(t.Context())
	if err != nil || len(revs) != 1 || revs[0].ID != cert.ID() || !strings.Contains(revs[0].Reason, "router berlin") {
		t.Errorf("revoked: %+v, %v", revs, err)
	}
	if err := c.login(t.Context(), d, "alice"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("login after the end: %v", err)
	}
	if u, _ := c.user("alice"); u.State != api.StateClosed || u.Reason == "" || u.Keys != api.KeysSealed {
		t.Errorf("the operator sees %+v", u)
	}
	c.must("user", "renew", "alice", "--password-file", filepath.Join(c.dir, "alice.password"))
	if err := c.login(t.Context(), d, "alice"); err != nil {
		t.Errorf("login with the next certificate: %v", err)
	}
	if u, _ := c.user("alice"); u.State != api.StateActive {
		t.Errorf("the operator sees %+v", u)
	}
}

// A user makes the keys on a machine of their own: the certificate is good, and the private keys are nowhere at
// headquarters, in no form that we could think of.
func TestKeysOfAUsersOwn(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	_, d := c.router("berlin", "10.1.0.0/24")
	ctx, url := t.Context(), "https://"+c.caAddr
	tok := c.token("user", "token", "erin", "--group", "staff")
	for name, x := range map[string]struct {
		token, uid, fingerprint string
		want                    error
	}{
		"a token for another user": {tok, "alice", c.fingerprint, caclient.ErrInvalid},
		"a router's token":         {c.token("router", "token", "paris", "--prefix", "10.2.0.0/24"), "erin", c.fingerprint, caclient.ErrInvalid},
		"another root":             {tok, "erin", strings.Repeat("ab", 32), caclient.ErrFingerprint},
		"a token that is none":     {"twinkey-user.aaaaaaaaaa.bbbb", "erin", c.fingerprint, caclient.ErrDenied},
	} {
		if _, _, err := caclient.EnrollUser(ctx, url, x.fingerprint, x.token, x.uid, caclient.Options{}); !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	keys, ends, err := caclient.EnrollUser(ctx, url, c.fingerprint, tok, "erin", caclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ends.DirectoryURL == "" || keys.Certificate.Group != "staff" {
		t.Errorf("%+v, group %q", ends, keys.Certificate.Group)
	}
	if _, _, err := caclient.EnrollUser(ctx, url, c.fingerprint, tok, "erin", caclient.Options{}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("the token once more: %v", err)
	}
	if u, _ := c.user("erin"); u.Keys != api.KeysOwn || u.State != api.StateActive {
		t.Errorf("the operator sees %+v", u)
	}
	if out := string(c.must("user", "show", "erin")); !strings.Contains(out, " own ") {
		t.Errorf("user show says nothing of it: %s", out)
	}
	if err := c.login(ctx, d, "erin"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("login at a router: %v", err)
	}

	next, _, err := caclient.RenewUser(ctx, url, keys, caclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if next.Certificate.ID() == keys.Certificate.ID() || next.Certificate.Keys == keys.Certificate.Keys {
		t.Error("a renewal means new keys and a new certificate")
	}
	stolen := next
	stolen.Control, stolen.Data = keys.Control, keys.Data
	if _, _, err := caclient.RenewUser(ctx, url, stolen, caclient.Options{}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("renewed without the keys: %v", err)
	}
	file := filepath.Join(c.dir, "password")
	if err := os.WriteFile(file, []byte("an operator's password"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.run("user", "renew", "erin", "--password-file", file); err == nil || !strings.Contains(err.Error(), "keys of their own") {
		t.Errorf("renewed by the operator: %v", err)
	}
	c.must("user", "revoke", "erin", "--reason", "machine stolen")
	if _, _, err := caclient.RenewUser(ctx, url, next, caclient.Options{}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("renewed after the revocation: %v", err)
	}

	// And of a user whose keys are sealed at headquarters: what the proof of the password is checked against is there, neither the
	// proof nor the sealing key.
	if err := c.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	params, err := d.LoginParams(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	proof, err := keybundle.Derive([]byte("password of alice"), params.Params)
	if err != nil {
		t.Fatal(err)
	}

	c.stop(&c.ca)
	c.stop(&c.directory)
	if len(holds(t, filepath.Join(c.dir, "directory"), keybundle.Verifier(proof.Auth.Bytes()))) == 0 {
		t.Error("the verifier is not found: the search is no good")
	}
	for _, k := range [][]byte{proof.Auth.Bytes(), proof.Seal.Bytes()} {
		for _, at := range holds(t, c.dir, k) {
			t.Errorf("a secret of the password lies in %s", at)
		}
	}
	for what, u := range map[string]caclient.UserKeys{"first": keys, "renewed": next} {
		for part, k := range map[string][]byte{"control": u.Control.Bytes(), "data": u.Data.Bytes()} {
			for _, at := range holds(t, c.dir, k) {
				t.Errorf("the %s %s key lies in %s", what, part, at)
			}
		}
		public := u.Certificate.Keys.Data
		if len(holds(t, filepath.Join(c.dir, "directory"), public[:])) == 0 || len(holds(t, filepath.Join(c.dir, "ca"), public[:])) == 0 {
			t.Errorf("nor is the %s public one found: the search is no good", what)
		}
	}
}

// holds are the files below dir in which b lies as it is, in hex, or in base64, also of JSON in JSON and whatever stands
// before it.
func holds(t *testing.T, dir string, b []byte) (files []string) {
	t.Helper()
	forms := [][]byte{b, []byte(hex.EncodeToString(b)), []byte(strings.ToUpper(hex.EncodeToString(b)))}
	for skip := range 3 { // base64 of bytes in the middle of others: from the next boundary on
		whole := b[skip:]
		whole = whole[:len(whole)/3*3]
		forms = append(forms, []byte(base64.StdEncoding.EncodeToString(whole)), []byte(base64.RawURLEncoding.EncodeToString(whole)))
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// A certificate in JSON in the database: base64 once more is undone, so that what lies in it is seen.
		contents := [][]byte{content}
		for _, text := range strings.FieldsFunc(string(content), func(r rune) bool {
			return r != '+' && r != '/' && r != '=' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			if len(text) >= 40 {
				if inner, err := base64.StdEncoding.DecodeString(text); err == nil {
					contents = append(contents, inner)
				}
			}
		}
		for _, c := range contents {
			if slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Contains(c, f) }) {
				files = append(files, path)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
