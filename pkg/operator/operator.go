package operator

import (
	"context"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// unknown is who is no process on this machine.
const unknown = "unknown"

type key struct{}

// Context notes who is at the other end of c. It is an http.Server's ConnContext.
func Context(ctx context.Context, c net.Conn) context.Context {
	who := unknown
	if u, ok := c.(*net.UnixConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					who = name(cred.Uid)
				}
			})
		}
	}
	return context.WithValue(ctx, key{}, who)
}

// Of is who Context has noted, such as operator:root.
func Of(ctx context.Context) string {
	if who, ok := ctx.Value(key{}).(string); ok {
		return who
	}
	return unknown
}

// Self is under whom this process runs.
func Self() string { return name(uint32(os.Getuid())) } //nolint:gosec // a user's number fits

func name(uid uint32) string {
	n := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(n); err == nil {
		return "operator:" + u.Username
	}
	return "operator:uid-" + n
}
