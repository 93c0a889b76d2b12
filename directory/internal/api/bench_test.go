package api_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"twinkey/directory/internal/store/storetest"
)

// What a login costs at the directory: both requests over mutual TLS, scope, proof and certificate, and the audit record
// on the disk. Argon2id is the router's, and not in it. As many log in at a time as a morning brings.
func BenchmarkRelease(b *testing.B) {
	const users, atOnce = 64, 32
	d := newDirectory(b, b.TempDir())
	ca, _ := d.as("twinkey://ca")
	berlin := d.company.NewRouter("berlin", []string{"group:staff"}, "10.1.0.0/16")
	must(b, ca.Apply(b.Context(), berlin.Change()))
	var staff []storetest.User
	for i := range users {
		u := d.company.NewUser(fmt.Sprintf("u%02d", i), "staff", "a password")
		must(b, ca.Apply(b.Context(), u.Change()))
		staff = append(staff, u)
	}
	r, _ := d.router(berlin)
	var next atomic.Int64
	b.SetParallelism(atOnce)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			u := staff[int(next.Add(1))%users]
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
