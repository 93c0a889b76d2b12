package api_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"twinkey/directory/client"
	"twinkey/directory/internal/store/storetest"
)

// What a login costs at the directory: both requests over mutual TLS, scope, proof and certificate, and the audit record
// on the disk. Argon2id is the router's, and not in it. As many log in at a time as a morning brings.
func BenchmarkRelease(b *testing.B) {
	const users, routers, atOnce = 64, 8, 16 // one router alone would be slowed down
	d := newDirectory(b, b.TempDir())
	ca, _ := d.as("twinkey://ca")
	var sites []*client.Client
	for i := range routers {
		r := d.company.NewRouter(fmt.Sprintf("r%d", i), []string{"group:staff"}, fmt.Sprintf("10.%d.0.0/16", 1+i))
		must(b, ca.Apply(b.Context(), r.Change()))
		c, _ := d.router(r)
		sites = append(sites, c)
	}
	var staff []storetest.User
	for i := range users {
		u := d.company.NewUser(fmt.Sprintf("u%02d", i), "staff", "a password")
		must(b, ca.Apply(b.Context(), u.Change()))
		staff = append(staff, u)
	}
	var next atomic.Int64
	b.SetParallelism(atOnce)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := int(next.Add(1))
			u, r := staff[n%users], sites[n%routers]
			if _, err := r.LoginParams(b.Context(), u.UID); err != nil {
				b.Error(err)
				return
			}
			if _, err := r.Release(b.Context(), u.UID, u.Auth); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
}
