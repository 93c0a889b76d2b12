// Package storetest says what a store.Store must do (Run), and has a small company for
// tests of whatever stands on one: a CA with root and intermediate that issues real
// certificates to routers and users (NewCompany).
package storetest
