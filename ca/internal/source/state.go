package source

// State is how a source does, for the operator.
type State struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"` // such as "radius over TLS"
	Servers  []string `json:"servers"`
	Warnings []string `json:"warnings,omitempty"` // what to do something about
	Counts   []Count  `json:"counts,omitempty"`   // those that are not zero
}

// Count says how often something happened since the start.
type Count struct {
	What string `json:"what"`
	N    uint64 `json:"n"`
}

// Reporter is a Source that tells how it does.
type Reporter interface{ State() State }
