package home

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/ldap"
	"twinkey/ca/internal/source/radius"
	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
)

// SourceConfig is one element of sources: a name, and a section that says what it is.
type SourceConfig struct {
	Name   string        `yaml:"name" doc:"What the source is called, in commands and the log." example:"office"`
	RADIUS radius.Config `yaml:"radius" doc:"RADIUS servers. Give this or ldap, not both."`
	LDAP   ldap.Config   `yaml:"ldap" doc:"LDAP servers. Give this or radius, not both."`
}

const maxSources = 16

// checkSources fails with a *config.Error.
func checkSources(sources []SourceConfig) error {
	if len(sources) > maxSources {
		return config.Wrong("sources", fmt.Errorf("more than %d", maxSources))
	}
	seen := make(map[string]bool)
	for i, c := range sources {
		key := fmt.Sprintf("sources[%d]", i)
		if err := twincert.CheckName(c.Name); err != nil {
			return config.Wrong(key+".name", err)
		}
		if seen[c.Name] {
			return config.Wrong(key+".name", fmt.Errorf("there are two sources %q", c.Name))
		}
		seen[c.Name] = true
		if err := c.check(key); err != nil {
			return err
		}
	}
	return nil
}

func (c *SourceConfig) check(key string) error {
	isRADIUS, isLDAP, err := c.kinds()
	switch {
	case err != nil:
		return err
	case isRADIUS && isLDAP:
		return config.Wrong(key, fmt.Errorf("source %q is radius and ldap: make two of it", c.Name))
	case isRADIUS:
		return c.RADIUS.Check(key + ".radius")
	case isLDAP:
		return c.LDAP.Check(key + ".ldap")
	}
	return config.Wrong(key, fmt.Errorf("source %q is nothing: give it a section radius or ldap", c.Name))
}

// kinds says which sections the file has. One that stands there with nothing but defaults says nothing.
func (c *SourceConfig) kinds() (isRADIUS, isLDAP bool, err error) {
	var errs [2]error
	var r radius.Config
	var l ldap.Config
	r, errs[0] = config.Parse[radius.Config](fileConfig, nil)
	l, errs[1] = config.Parse[ldap.Config](fileConfig, nil)
	return !reflect.DeepEqual(c.RADIUS, r), !reflect.DeepEqual(c.LDAP, l), errors.Join(errs[:]...)
}

// OpenSources opens the sources of a configuration that was checked, in its order. What their files are relative to
// is dir. Nobody is spoken to yet. An error is a *config.Error for what a key names.
func OpenSources(dir string, configs []SourceConfig, log *slog.Logger) ([]source.Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var out []source.Source
	for i, c := range configs {
		s, err := c.open(fmt.Sprintf("sources[%d]", i), dir, log)
		if err != nil {
			return nil, errors.Join(err, CloseSources(out))
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *SourceConfig) open(key, dir string, log *slog.Logger) (source.Source, error) {
	isRADIUS, _, err := c.kinds()
	if err != nil {
		return nil, err
	}
	// Not returned as they come: a nil pointer in an interface is not nil.
	if isRADIUS {
		s, err := radius.New(c.Name, key+".radius", dir, c.RADIUS, log)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := ldap.New(c.Name, key+".ldap", dir, c.LDAP, log)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// CloseSources closes all of them.
func CloseSources(sources []source.Source) error {
	var errs []error
	for _, s := range sources {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
