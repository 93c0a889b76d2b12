// Package settings is the router's configuration file: one YAML document, every key
// documented where it is declared, unknown keys refused. File is what is written,
// Settings is what was checked; only the latter reaches the engine.
package settings
