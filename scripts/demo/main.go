//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

func main() {
	if err := lab.Prepare(); err != nil {
		fmt.Println("demo: failed:", err)
		os.Exit(1)
	}
	keep := flag.String("keep", "", "directory to keep the capture of the WAN and the logs in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, os.Stdout, *keep)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Println("demo: interrupted; nothing is left behind")
	case err != nil:
		fmt.Println("demo: failed:", err)
	default:
		fmt.Println("demo: ok")
		return
	}
	os.Exit(1)
}

// demo is one run: what it shows it to, and what the steps leave for one another.
type demo struct {
	out   io.Writer
	begin time.Time
	*lab.Company

	aToB, bToA []byte                    // the files that were transferred
	captures   captures                  // that run
	streams    map[string]*netlab.Stream // the users' transfers, by UserID
}

func run(ctx context.Context, out io.Writer, keep string) (err error) {
	d := &demo{out: out, begin: time.Now(), streams: map[string]*netlab.Stream{}}
	d.say("a network of namespaces: hosta - ra - wan - rb - hostb, and hq on the wan")
	if d.Company, err = lab.New(ctx); err != nil {
		return err
	}
	defer func() {
		if keep != "" {
			err = errors.Join(err, d.keep(keep))
		}
		d.say("everything stops")
		for _, x := range d.streams {
			x.Break()
		}
		err = errors.Join(err, d.Close())
	}()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"capturing the WAN, and the LAN of hosta to compare", d.startCaptures},
		{"the CA: init, serve", d.StartCA},
		{"the directory: enrol, serve", d.StartDirectory},
		{"router ra: enrol with a one-time token, up", func(ctx context.Context) error { return d.StartRouter(ctx, lab.SiteA, "") }},
		{"router rb: the same binary, the same commands", func(ctx context.Context) error { return d.StartRouter(ctx, lab.SiteB, "") }},
		{"the site link: tunnel and call, keyed by twin certificates", d.WaitLink},
		{"ping across, both ways", d.pingAcross},
		{"a file across, both ways, hashed where it leaves and where it arrives", d.transferAcross},
		{"users alice and bob of group " + lab.UserGroup + ": certificates and sealed keys", d.addUsers},
		{"both log in at ra: two more calls, in one tunnel of their group", d.login},
		{"status of ra", d.status},
		{"what the WAN saw", d.inspect},
		{"both transfer something, each through a call of their own", d.transferAsUsers},
		{"alice's certificate is revoked meanwhile: her call ends, bob's transfer goes on", d.revoke},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.say("%s", step.what)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// say prints a step with the time since the beginning.
func (d *demo) say(format string, args ...any) {
	d.print("%6.2fs  "+format+"\n", append([]any{time.Since(d.begin).Seconds()}, args...)...)
}

// show prints a result below its step.
func (d *demo) show(format string, args ...any) { d.print("           "+format+"\n", args...) }

// print does not care whether anybody reads: a closed pipe is no reason to leave a laboratory half built.
func (d *demo) print(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }
