// Package api serves the register: to the CA and to routers over mutual TLS, in the
// protocol of directory/client; to the operator of this machine over a unix socket that
// only the owner may open.
//
//	unix socket                                 answers
//	GET /status                                 Status
//	GET /audit?since&actor&kind&subject         NDJSON of store.AuditRecord
//	GET /audit/verify?head                      Verdict
//	GET /backup                                 the database, Content-Length bytes
//
// Limits for strangers: connections in all and from one address, 5 s for handshake and
// header, bodies of client.MaxBody (the CA: client.MaxChange). A connection that was
// refused for who it is is closed. Requests that write are limited for each caller.
package api
