// Package config reads YAML configuration files into structs and documents them from
// the same structs, so that neither can know a key that the other doesn't.
//
//	type File struct {
//		Listen string        `yaml:"listen" doc:"UDP address for tunnels." default:"0.0.0.0:1701"`
//		Public string        `yaml:"public" doc:"Address at which peers reach us." example:"198.51.100.1:1701"`
//		Hello  time.Duration `yaml:"hello"  doc:"HELLO after this much silence." default:"15s"`
//		Tun    Tun           `yaml:"tun"    doc:"The interface."`  // a struct is a section
//	}
//	f, err := config.Load[File](path)
//
// Load starts from the defaults and takes the file over them. It refuses what it does
// not know; each *Error names file, line and column, shows the line and, where it can,
// says what was probably meant:
//
//	router.yaml:7:3: tun.mtuu: unknown key; did you mean mtu?
//	    7 |   mtuu: 1400
//	      |   ^
//
// A check that is handed to Load names the key whose value is wrong (Wrong), and Load adds the
// place.
//
// Fields are strings, booleans, numbers, time.Duration (with a unit), Size, whatever is an
// encoding.TextUnmarshaler (net/netip's types), slices of these, structs, slices of
// structs, and maps from strings.
//
// Left out on purpose: anchors, aliases and merge keys (a small file may not become a
// large one), several documents in a file, environment variables, includes.
package config
