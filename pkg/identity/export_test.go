package identity

// Steps are those that Replace takes, for a test that stops between them.
func (i *Identity) Steps(b Bundle) (steps []func() error, counts func() bool, err error) {
	r, err := newReplacement(i.dir, &b)
	if err != nil {
		return nil, nil, err
	}
	return r.steps(), func() bool { return r.counts }, nil
}
