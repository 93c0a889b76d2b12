package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"twinkey/directory/internal/api"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/pkg/cli"
)

// errNotRunning says that no server listens on the admin socket.
var errNotRunning = errors.New("no directory is running here")

// get asks the running server. The caller closes the body.
func (h home) get(ctx context.Context, path string, q url.Values) (*http.Response, error) {
	return h.ask(ctx, http.MethodGet, path+"?"+q.Encode(), nil)
}

// ask is get for any request.
func (h home) ask(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", h.socket())
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := hc.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %s", errNotRunning, h.socket())
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		_ = res.Body.Close()
		return nil, fmt.Errorf("the directory answered %s: %s", res.Status, b)
	}
	return res, nil
}

// open opens the register of a directory that does not run.
func (h home) open(ctx context.Context) (*store.Register, func() error, error) {
	if _, err := os.Stat(h.database()); err != nil { // or it would be made
		return nil, nil, err
	}
	db, err := boltstore.Open(h.database())
	if err != nil {
		return nil, nil, err
	}
	reg, err := store.Open(ctx, db, time.Now)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return reg, db.Close, nil
}

func statusCommand(in func() home) *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show the running directory", Args: cobra.NoArgs,
		Example: "  twinkey-directory status --json",
		RunE: func(c *cobra.Command, _ []string) error {
			const what = "asking the directory for its status"
			res, err := in().get(c.Context(), api.PathStatus, nil)
			if errors.Is(err, errNotRunning) {
				return cli.Fail(cli.ExitUnavailable, what, err, "start it: twinkey-directory serve")
			}
			if err != nil {
				return fail(what, err)
			}
			defer func() { _ = res.Body.Close() }()
			var st api.Status
			if err := json.NewDecoder(res.Body).Decode(&st); err != nil {
				return fail(what, err)
			}
			return cli.Print(c, st, func(t *cli.Table) {
				t.Row("running for", cli.Duration(st.Now.Sub(st.Started))+fmt.Sprintf(" (pid %d)", st.PID))
				t.Row("revision", st.Revision)
				t.Row("watchers", st.Watchers)
				t.Row("database", cli.Bytes(uint64(st.Database))) //nolint:gosec // a file's size
				for _, k := range []string{"requests", "changes", "released", "denied", "locked", "limited", "write-failed", "connections-refused"} {
					t.Row(k, st.Counters[k])
				}
				for _, cert := range st.Certificates {
					t.Row("certificate "+cert.Subject, "expires "+cli.Until(st.Now, cert.NotAfter))
				}
			})
		},
	}
	cli.AddJSON(c)
	return c
}

func auditCommand(in func() home) *cobra.Command {
	var since, actor, kind, subject string
	var limit int
	c := &cobra.Command{
		Use: "audit", Short: "List who did what", Args: cobra.NoArgs,
		Long:    "Lists audit records in the order in which they were written, the newest --limit of those that match.",
		Example: "  twinkey-directory audit --since 24h --kind denied\n  twinkey-directory audit --actor twinkey://router/berlin --json",
		RunE: func(c *cobra.Command, _ []string) error {
			const what = "reading the audit records"
			from, err := parseSince(since, time.Now())
			if err != nil {
				return cli.Fail(cli.ExitUsage, what, err, `--since takes a duration such as "24h" or a time such as "2026-01-31T08:00:00Z"`)
			}
			if kinds := store.AuditKinds(); kind != "" && !slices.Contains(kinds, kind) { // an empty list would say that nothing happened
				return cli.Fail(cli.ExitUsage, what, fmt.Errorf("--kind: there is no kind %q", kind), "known are: "+strings.Join(kinds, ", "))
			}
			records := []store.AuditRecord{}
			err = in().audit(c.Context(), store.AuditQuery{Since: from, Actor: actor, Kind: kind, Subject: subject}, func(a store.AuditRecord) error {
				if records = append(records, a); limit > 0 && len(records) >= 2*limit { // cut seldom
					records = append(records[:0], records[len(records)-limit:]...)
				}
				return nil
			})
			if err != nil {
				return fail(what, err)
			}
			if limit > 0 && len(records) > limit {
				records = records[len(records)-limit:]
			}
			return cli.Print(c, records, func(t *cli.Table) {
				for _, a := range records {
					by := a.Actor
					if a.For != "" {
						by += " for " + a.For
					}
					t.Row(a.Seq, a.Time.UTC().Format(time.RFC3339), a.Revision, by, a.Kind, a.Subject, a.Detail)
				}
			}, "SEQ", "TIME", "REVISION", "ACTOR", "KIND", "SUBJECT", "DETAIL")
		},
	}
	c.Flags().StringVar(&since, "since", "", "no records older than this: a duration or a time")
	c.Flags().StringVar(&actor, "actor", "", "only what this one did or asked for")
	c.Flags().StringVar(&kind, "kind", "", "only this kind: "+strings.Join(store.AuditKinds(), ", "))
	c.Flags().StringVar(&subject, "subject", "", "only about this user, router or group")
	// It fails only for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(store.AuditKinds(), cobra.ShellCompDirectiveNoFileComp))
	c.Flags().IntVar(&limit, "limit", 1000, "no more than this many, the newest; 0: all")
	cli.AddJSON(c)
	c.AddCommand(verifyCommand(in))
	return c
}

func verifyCommand(in func() home) *cobra.Command {
	var head string
	c := &cobra.Command{
		Use: "verify", Short: "Say whether the audit records are what was written", Args: cobra.NoArgs,
		Long: `Goes through all audit records. Each has a sum over itself and all before it, so that one
that was altered or removed shows. Whoever can write to the database could compute all sums
anew: note the head that this command prints where they cannot, and hand it over with --head later.`,
		Example: "  twinkey-directory audit verify\n  twinkey-directory audit verify --head 1042:3f0c...",
		RunE: func(c *cobra.Command, _ []string) error {
			const what = "verifying the audit records"
			var noted store.AuditHead
			if head != "" {
				var err error
				if noted, err = store.ParseAuditHead(head); err != nil {
					return cli.Fail(cli.ExitUsage, what, err, "take it from what this command printed earlier")
				}
			}
			v, err := in().verify(c.Context(), noted)
			if err != nil {
				return fail(what, err)
			}
			err = cli.Print(c, v, func(t *cli.Table) {
				t.Row("as they were written", fmt.Sprintf("%d records", v.Head.Seq))
				if v.Unsummed > 0 {
					t.Row("of an earlier version", fmt.Sprintf("the first %d, covered by the sum of the next", v.Unsummed))
				}
				t.Row("head", v.Head)
			})
			if err == nil && v.Broken != nil {
				err = cli.Fail(cli.ExitFailure, what, v.Broken, "somebody has changed the database: compare it with your back-ups, and find out who may write to its file")
			}
			return err
		},
	}
	c.Flags().StringVar(&head, "head", "", "a head that was noted earlier, SEQ:SUM: fail unless the records up to there are the same")
	cli.AddJSON(c)
	return c
}

func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	return time.Parse(time.RFC3339, s)
}

// verify asks the running server, or looks into the database itself.
func (h home) verify(ctx context.Context, noted store.AuditHead) (v api.Verdict, err error) {
	q := url.Values{}
	if noted.Seq > 0 {
		q.Set("head", noted.String())
	}
	res, err := h.get(ctx, api.PathVerify, q)
	if errors.Is(err, errNotRunning) {
		reg, closeDB, err := h.open(ctx)
		if err != nil {
			return v, err
		}
		v, err = api.VerifyAudit(ctx, reg, noted)
		return v, errors.Join(err, closeDB())
	}
	return answered[api.Verdict](res, err)
}

// answered is what the running server has said.
func answered[T any](res *http.Response, err error) (v T, _ error) {
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("the directory broke off: %w", err)
	}
	return v, nil
}

// audit hands records to add, from the running server or from the database itself.
func (h home) audit(ctx context.Context, q store.AuditQuery, add func(store.AuditRecord) error) (err error) {
	v := url.Values{"actor": {q.Actor}, "kind": {q.Kind}, "subject": {q.Subject}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	res, err := h.get(ctx, api.PathAudit, v)
	if errors.Is(err, errNotRunning) {
		reg, closeDB, err := h.open(ctx)
		if err != nil {
			return err
		}
		return errors.Join(api.WriteAudit(ctx, reg, q, add), closeDB())
	}
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	for d := json.NewDecoder(bufio.NewReader(res.Body)); ; {
		var a store.AuditRecord
		if err := d.Decode(&a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the directory broke off: %w", err)
		}
		if err := add(a); err != nil {
			return err
		}
	}
}
