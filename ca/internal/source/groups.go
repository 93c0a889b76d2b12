package source

import (
	"fmt"

	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
)

// Mapping makes a tunnel group of something that a server says of a user.
type Mapping struct {
	Value string `yaml:"value" doc:"What the server says: the attribute's value, or the DN of an LDAP group." example:"cn=staff,ou=groups,dc=example"`
	Group string `yaml:"group" doc:"The tunnel group of whom it is said." example:"staff"`
}

// maxMappings bounds a list that is gone through at each login.
const maxMappings = 1000

// CheckGroups looks at the keys groups and group of the section key.
func CheckGroups(key string, groups []Mapping, group string) error {
	if len(groups) > maxMappings {
		return config.Wrong(key+".groups", fmt.Errorf("more than %d", maxMappings))
	}
	for i, m := range groups {
		at := fmt.Sprintf("%s.groups[%d]", key, i)
		if m.Value == "" {
			return config.Wrong(at+".value", fmt.Errorf("what does the server say of those in group %q?", m.Group))
		}
		if err := twincert.CheckName(m.Group); err != nil {
			return config.Wrong(at+".group", err)
		}
	}
	if group != "" {
		if err := twincert.CheckName(group); err != nil {
			return config.Wrong(key+".group", err)
		}
	}
	return nil
}

// PickGroup finds the tunnel group of a user of whom a server says values: that of the first
// mapping that fits, whatever the order of the values. Without any mapping the first value that can be a
// group's name is one. If there is none it is the fallback, which may be empty.
func PickGroup(mappings []Mapping, values []string, same func(a, b string) bool, fallback string) string {
	for _, m := range mappings {
		for _, v := range values {
			if same(m.Value, v) {
				return m.Group
			}
		}
	}
	if len(mappings) == 0 {
		for _, v := range values {
			if twincert.CheckName(v) == nil {
				return v
			}
		}
	}
	return fallback
}
