package client

import "net/netip"

// The bodies of requests and answers that are not one of the exported records. The
// server reads and writes the same types.
type (
	// ErrorBody is a refusal.
	ErrorBody struct {
		Error struct {
			Code         string `json:"code"`
			Message      string `json:"message,omitempty"`
			RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
		} `json:"error"`
	}
	// AppliedBody answers POST /v1/changes and GET /v1/changes/{id}.
	AppliedBody struct {
		Applied  bool     `json:"applied"`
		Revision Revision `json:"revision,omitempty"` // that the change made
	}
	// SitesBody answers GET /v1/sites.
	SitesBody struct {
		Revision Revision `json:"revision"`
		Sites    []Site   `json:"sites"`
	}
	// AnnounceBody is sent to PUT /v1/site.
	AnnounceBody struct {
		Endpoint string         `json:"endpoint,omitempty"`
		Prefixes []netip.Prefix `json:"prefixes"`
	}
	// ParamsBody is sent to POST /v1/login/params.
	ParamsBody struct {
		UID string `json:"uid"`
	}
	// CallsBody is sent to POST /v1/calls.
	CallsBody struct {
		Run     string       `json:"run"` // of the router: numbers of records begin anew with it
		Records []CallRecord `json:"records"`
	}
	// UserCallsBody is sent to POST /v1/user-calls: whatever came up to After has been dealt with and may be forgotten.
	UserCallsBody struct {
		Source string `json:"source"`
		After  uint64 `json:"after"`
	}
	// UserCalls answers it.
	UserCalls struct {
		Newest uint64     `json:"newest"` // less than After: this directory was restored from an older copy
		Calls  []UserCall `json:"calls"`
	}
	// HoldingsBody is sent to POST /v1/login/successors.
	HoldingsBody struct {
		Holdings []Holding `json:"holdings"`
	}
	// ReleaseBody is sent to POST /v1/login/release.
	ReleaseBody struct {
		UID  string `json:"uid"`
		Auth []byte `json:"auth"`
	}
)

// The paths of the API.
const (
	PathHealth      = "/v1/health"
	PathChanges     = "/v1/changes"
	PathSites       = "/v1/sites"
	PathSite        = "/v1/site"
	PathWatch       = "/v1/watch"
	PathCRL         = "/v1/crl"
	PathRevocations = "/v1/revocations"
	PathParams      = "/v1/login/params"
	PathRelease     = "/v1/login/release"
	PathReseal      = "/v1/login/reseal"
	PathSuccessors  = "/v1/login/successors"
	PathOwn         = "/v1/login/own"
	PathCalls       = "/v1/calls"
	PathVouches     = "/v1/vouches"
	PathRefusals    = "/v1/refusals"
	PathUserCalls   = "/v1/user-calls"
	PathLocks       = "/v1/locks"
	PathUnlock      = "/v1/unlock"
)

const (
	// MaxChange bounds the body of a Change.
	MaxChange = 16 << 20
	// MaxBody bounds every other request.
	MaxBody = 1 << 20
	// MaxCalls bounds the records of one CallsBody, and of one UserCalls.
	MaxCalls = 200
	// MaxHoldings bounds the holdings of one HoldingsBody.
	MaxHoldings = 100
	// MaxLocks bounds the locks of one Unlock.
	MaxLocks = 1000
	// MaxEvent bounds one line of the watch.
	MaxEvent = 256 << 10
	// MaxRevisionEvents bounds the events that one revision may have.
	MaxRevisionEvents = 1 << 14
	// maxAnswer bounds what a directory can make us hold: some 20,000 sites.
	maxAnswer = 64 << 20
)
