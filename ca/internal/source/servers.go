package source

import (
	"sync"
	"time"
)

// rest is how long a server that fell silent is asked last.
const rest = time.Minute

// Turn is how long a server is waited for at a login if there is another one behind it, which is to be asked before whoever logs in, or the
// CA, gives up.
const Turn = 9 * time.Second

// Servers are those of a source, in the order of the configuration. One that fell silent is asked after the
// others until it has answered, or a minute has passed. Safe for concurrent use.
type Servers struct {
	names []string

	mu     sync.Mutex
	silent map[string]time.Time // until when each is asked last
}

// NewServers returns names in their order.
func NewServers(names []string) *Servers {
	return &Servers{names: names, silent: make(map[string]time.Time)}
}

// Order says whom to ask first, second and so on.
func (s *Servers) Order(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first, last []string
	for _, n := range s.names {
		if now.Before(s.silent[n]) {
			last = append(last, n)
		} else {
			first = append(first, n)
		}
	}
	return append(first, last...)
}

// Answered says that name is to be asked in its turn again.
func (s *Servers) Answered(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, name)
}

// Silent lets the others be asked before name for a while.
func (s *Servers) Silent(name string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[name] = now.Add(rest)
}
