package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"twinkey/router/internal/settings"
)

// Endpoints are the services that a router depends on.
type Endpoints struct {
	CA        string `json:"ca"`        // URL
	Directory string `json:"directory"` // URL
}

const endpointsFile = "endpoints.json"

// Save notes what enrolment told, so that the configuration need not repeat it.
func (e Endpoints) Save(state string) error {
	b, err := json.MarshalIndent(e, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the endpoints: %w", err)
	}
	if err := os.WriteFile(filepath.Join(state, endpointsFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("saving the endpoints: %w", err)
	}
	return nil
}

// LoadEndpoints reads what enrolment told; what the configuration says goes before it.
func LoadEndpoints(s *settings.Settings) (Endpoints, error) {
	var e Endpoints
	path := filepath.Join(s.State, endpointsFile)
	b, err := os.ReadFile(path) //nolint:gosec // the operator's own state directory
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return e, fmt.Errorf("reading %s: %w", path, err)
	}
	if s.CA != "" {
		e.CA = s.CA
	}
	if s.Directory != "" {
		e.Directory = s.Directory
	}
	if e.CA == "" || e.Directory == "" {
		return e, fmt.Errorf("neither %s nor the configuration says where CA and directory are: enrol this router, or set ca and directory", path)
	}
	return e, nil
}
