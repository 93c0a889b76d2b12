package closing

import (
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
)

const (
	proofLen  = 32
	maxSerial = 49      // 20 octets (RFC 5280 4.1.2.2), in decimal
	maxFile   = 4 << 20 // maxWaiting entries, and room
)

// ErrFile says that what lies at the queue's path is not what a router wrote.
var ErrFile = errors.New("not a list of ended sessions, or a damaged one; without it certificates of ended sessions may stay unrevoked")

// contents of the file.
type contents struct {
	key     *ecdh.PublicKey
	waiting []waiting
}

// The file as JSON. Nothing in it is secret: a proof has one use.
type (
	fileJSON struct {
		CAKey   []byte      `json:"ca_key,omitempty"`
		Waiting []entryJSON `json:"waiting"`
	}
	entryJSON struct {
		User   string    `json:"user"`
		Serial string    `json:"serial"`
		Since  time.Time `json:"since"`
		Proof  []byte    `json:"proof"`
	}
)

// load reads the file at path; none is an empty one.
func load(path string) (contents, error) {
	f, err := os.Open(path) //nolint:gosec // in the router's own directory
	if errors.Is(err, os.ErrNotExist) {
		return contents{}, nil
	}
	if err != nil {
		return contents{}, fmt.Errorf("reading ended sessions: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return contents{}, fmt.Errorf("reading ended sessions: %w", err)
	}
	c, err := parse(b)
	if err != nil {
		return contents{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// parse reads strictly. Its error is ErrFile.
func parse(b []byte) (c contents, err error) {
	bad := func(format string, args ...any) (contents, error) {
		return contents{}, fmt.Errorf("%w: %w", ErrFile, fmt.Errorf(format, args...))
	}
	if len(b) > maxFile {
		return bad("too long")
	}
	var f fileJSON
	if err := strictjson.Decode(b, &f); err != nil {
		return bad("%w", err)
	}
	if len(f.CAKey) > 0 {
		if c.key, err = ecdh.X25519().NewPublicKey(f.CAKey); err != nil {
			return bad("ca_key: %w", err)
		}
	}
	if len(f.Waiting) > maxWaiting {
		return bad("%d entries", len(f.Waiting))
	}
	for _, e := range f.Waiting {
		if err := twincert.CheckName(e.User); err != nil {
			return bad("user %q: %w", e.User, err)
		}
		if !decimal(e.Serial) || len(e.Serial) > maxSerial || len(e.Proof) != proofLen {
			return bad("entry of %s: no serial number, or a proof of %d bytes", e.User, len(e.Proof))
		}
		c.waiting = append(c.waiting, waiting{user: e.User, serial: e.Serial, since: e.Since, proof: e.Proof})
	}
	return c, nil
}

func decimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// encode leaves out what has no proof yet: keys are not written.
func encode(c contents) ([]byte, error) {
	f := fileJSON{Waiting: []entryJSON{}}
	if c.key != nil {
		f.CAKey = c.key.Bytes()
	}
	for _, w := range c.waiting {
		if w.proof != nil {
			f.Waiting = append(f.Waiting, entryJSON{w.user, w.serial, w.since, w.proof})
		}
	}
	return json.Marshal(f)
}

// store replaces the file: the old one or the new one is there, whole, whenever the process dies.
func store(path string, c contents) error {
	b, err := encode(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
