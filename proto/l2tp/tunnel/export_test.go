package tunnel

// State names the state, for tests of the table.
func (t *Tunnel) State() string { return t.state.String() }
