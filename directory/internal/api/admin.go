package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/operator"
)

// The paths of the operator's socket.
const (
	PathStatus = "/status"
	PathAudit  = "/audit"
	PathVerify = "/audit/verify"
	PathBackup = "/backup"
	PathLocks  = "/locks"
	PathUnlock = "/unlock"
)

const (
	auditBatch    = 1000
	backupTimeout = time.Hour // a reader that is slower holds old pages for too long
)

// Certificate is one that runs out.
type Certificate struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
}

// Status is what an operator wants to know of a running directory.
type Status struct {
	PID          int               `json:"pid"`
	Started      time.Time         `json:"started"`
	Now          time.Time         `json:"now"` // by the directory's clock
	Revision     client.Revision   `json:"revision"`
	Watchers     int               `json:"watchers"`
	Database     int64             `json:"database_bytes"`
	Counters     map[string]uint64 `json:"counters"`
	Certificates []Certificate     `json:"certificates"`
}

// Listen opens the operator's socket at path for its owner alone.
func Listen(path string) (net.Listener, error) {
	// Whoever holds the database's lock is the only one who may be here: what lies at path
	// was left by a process that died.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a stale admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the admin socket to others: %w", err), l.Close())
	}
	return l, nil
}

// ServeAdmin answers the operator on l until ctx ends. describe adds to a status what the
// server does not know: the directory's certificates and the size of its database.
func (s *Server) ServeAdmin(ctx context.Context, l net.Listener, describe func(*Status)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathStatus, func(w http.ResponseWriter, r *http.Request) {
		st, err := s.status(r.Context())
		if err != nil {
			s.refuse(w, err)
			return
		}
		describe(&st)
		answer(w, st)
	})
	mux.HandleFunc("GET "+PathAudit, s.adminAudit)
	mux.HandleFunc("GET "+PathVerify, s.adminVerify)
	mux.HandleFunc("GET "+PathBackup, s.adminBackup)
	mux.HandleFunc("GET "+PathLocks, s.adminLocks)
	mux.HandleFunc("POST "+PathUnlock, s.adminUnlock)
	return s.run(ctx, &http.Server{Handler: mux, ConnContext: operator.Context, ReadHeaderTimeout: headerTimeout, WriteTimeout: backupTimeout}, l)
}

func (s *Server) status(ctx context.Context) (Status, error) {
	st := Status{PID: os.Getpid(), Started: s.start, Now: s.reg.Now(), Watchers: s.hub.Watchers(), Counters: map[string]uint64{
		"requests": s.Requests.Load(), "changes": s.Changes.Load(), "released": s.Released.Load(), "denied": s.Denied.Load(),
		"locked": s.Locked.Load(), "limited": s.Limited.Load(), "write-failed": s.Failed.Load(), "connections-refused": s.Refused.Load(),
	}}
	err := s.reg.Read(ctx, func(r *store.Reader) (err error) {
		st.Revision, err = r.Revision()
		return err
	})
	return st, err
}

func (s *Server) adminAudit(w http.ResponseWriter, r *http.Request) {
	q, err := parseAuditQuery(r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	if err := WriteAudit(r.Context(), s.reg, q, func(a store.AuditRecord) error { return lines.Encode(a) }); err != nil {
		s.log.Warn("audit-broke-off", "error", err)
		panic(http.ErrAbortHandler) // so that the reader does not take it for the end
	}
}

func parseAuditQuery(r *http.Request) (q store.AuditQuery, err error) {
	v := r.URL.Query()
	q = store.AuditQuery{Actor: v.Get("actor"), Kind: v.Get("kind"), Subject: v.Get("subject")}
	if t := v.Get("since"); t != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, t); err != nil {
			return q, fmt.Errorf("%w: since: %w", client.ErrInvalid, err)
		}
	}
	return q, nil
}

// Verdict is what there is to say of the audit records.
type Verdict struct {
	Head     store.AuditHead    `json:"head"`               // of the records that are as they were written
	Unsummed uint64             `json:"unsummed,omitempty"` // the first so many are from before there were sums
	Broken   *store.BrokenError `json:"broken,omitempty"`
}

func (s *Server) adminVerify(w http.ResponseWriter, r *http.Request) {
	var noted store.AuditHead
	if h := r.URL.Query().Get("head"); h != "" {
		var err error
		if noted, err = store.ParseAuditHead(h); err != nil {
			s.refuse(w, fmt.Errorf("%w: head: %w", client.ErrInvalid, err))
			return
		}
	}
	v, err := VerifyAudit(r.Context(), s.reg, noted)
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, v)
}

// VerifyAudit goes through all audit records, in transactions short enough not to hold the database up.
func VerifyAudit(ctx context.Context, reg *store.Register, noted store.AuditHead) (Verdict, error) {
	v := store.Verifier{Noted: noted}
	for more := true; more; {
		err := reg.Read(ctx, func(r *store.Reader) (err error) {
			more, err = r.VerifyAudit(&v, auditBatch)
			return err
		})
		if broken, ok := errors.AsType[*store.BrokenError](err); ok {
			return Verdict{v.Head(), v.Unsummed, broken}, nil
		}
		if err != nil {
			return Verdict{}, err
		}
	}
	return Verdict{v.Head(), v.Unsummed, nil}, nil
}

// WriteAudit hands the records that q chooses to write, in transactions short enough not
// to hold the database up.
func WriteAudit(ctx context.Context, reg *store.Register, q store.AuditQuery, write func(store.AuditRecord) error) error {
	for {
		var batch []store.AuditRecord
		err := reg.Read(ctx, func(r *store.Reader) error {
			for a, err := range r.Audit(q) {
				if err != nil {
					return err
				}
				if batch = append(batch, a); len(batch) == auditBatch {
					break
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, a := range batch {
			if err := write(a); err != nil {
				return err
			}
			q.After = a.Seq
		}
		if len(batch) < auditBatch {
			return nil
		}
	}
}

func (s *Server) adminBackup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	err := s.reg.Backup(r.Context(), w, func(n int64) {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10)) // a reader sees that a copy broke off
	})
	if err != nil {
		s.log.Warn("backup-broke-off", "error", err)
		panic(http.ErrAbortHandler)
	}
	s.log.Info("backup-taken")
}
