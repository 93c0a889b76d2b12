package radius

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
)

// statusTypes are the values of Acct-Status-Type (RFC 2866 5.1).
var statusTypes = map[source.What]uint32{source.Start: 1, source.Stop: 2, source.Interim: 3}

// causes are the values of Acct-Terminate-Cause (RFC 2866 5.10).
var causes = map[source.Cause]uint32{
	source.CauseUser: 1, source.CauseLost: 2 /* Lost Carrier */, source.CauseIdle: 4, source.CauseSession: 5,
	source.CauseRevoked: 6 /* Admin Reset */, source.CauseShutdown: 11 /* NAS Reboot */, source.CauseError: 9, /* NAS Error */
}

// Pauses between rounds in which no accounting server answered.
const (
	firstPause = 2 * time.Second
	lastPause  = time.Minute
)

// Account tells the accounting servers of a call, again and again until one of them has acknowledged it or ctx ends. Without such
// servers it only notes whose session it is.
func (s *Source) Account(ctx context.Context, e source.Event) error {
	s.sessions.note(e, time.Now())
	if len(s.cfg.Accounting) == 0 {
		return nil
	}
	if statusTypes[e.What] == 0 {
		return fmt.Errorf("accounting for %s: %d is no event", e.UID, e.What)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		_, _, err := s.ask(ctx, s.accounting, radius.CodeAccountingRequest, func(p *radius.Packet) error {
			s.accountingAttributes(p, e, time.Now())
			return nil
		})
		if err == nil {
			s.count.accounted.Add(1)
			return nil
		}
		select {
		case <-time.After(pause):
		case <-s.life.Done():
			return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
		}
	}
}

func (s *Source) accountingAttributes(p *radius.Packet, e source.Event, now time.Time) {
	addNumber(p, typeAcctStatusType, statusTypes[e.What])
	add(p, typeAcctSessionID, e.Session)
	add(p, typeUserName, e.UID)
	add(p, typeNASIdentifier, s.cfg.NASIdentifier)
	addNumber(p, typeNASPortType, portVirtual)
	addNumber(p, typeServiceType, serviceFramed)
	addNumber(p, typeAcctAuthentic, authenticRADIUS)
	add(p, typeCalledStationID, e.Router)
	switch a := e.Address.Unmap(); {
	case a.Is4():
		v := a.As4()
		p.Add(typeFramedIPAddress, v[:])
	case a.Is6():
		v := a.As16()
		p.Add(typeFramedIPv6Address, v[:])
	}
	for _, class := range unpackState(e.State) {
		p.Add(typeClass, class)
	}
	if unix := e.Time.Unix(); unix > 0 && unix <= math.MaxUint32 {
		addNumber(p, typeEventTimestamp, uint32(unix))
		addNumber(p, typeAcctDelayTime, saturated(uint64(max(0, now.Sub(e.Time))/time.Second)))
	}
	if e.What == source.Start {
		return
	}
	addNumber(p, typeAcctInputOctets, uint32(e.BytesIn)) //nolint:gosec // the rest are the Gigawords
	addNumber(p, typeAcctInputGigawords, uint32(e.BytesIn>>32))
	addNumber(p, typeAcctOutputOctets, uint32(e.BytesOut)) //nolint:gosec // the rest are the Gigawords
	addNumber(p, typeAcctOutputGigawords, uint32(e.BytesOut>>32))
	addNumber(p, typeAcctInputPackets, saturated(e.PacketsIn))
	addNumber(p, typeAcctOutputPackets, saturated(e.PacketsOut))
	addNumber(p, typeAcctSessionTime, saturated(uint64(max(0, e.Lasted)/time.Second)))
	if c := causes[e.Cause]; e.What == source.Stop && c != 0 {
		addNumber(p, typeAcctTerminateCause, c)
	}
}

// saturated is n, or the most that an attribute holds.
func saturated(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// Bounds of what is remembered of sessions.
const (
	maxSessions  = 1 << 16
	sessionLife  = 48 * time.Hour // without a word, when room is needed
	maxSessionID = 128
)

// sessions says whose an Acct-Session-Id is, for requests of RFC 5176 that name nothing else. The zero value is empty.
type sessions struct {
	mu   sync.Mutex
	byID map[string]session
}

type session struct {
	uid   string
	heard time.Time
}

// note learns from an event. Beyond maxSessions those that nothing was heard of make room, or it is forgotten: then a
// request has to name the user.
func (s *sessions) note(e source.Event, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.What == source.Stop {
		delete(s.byID, e.Session)
		return
	}
	if e.Session == "" || len(e.Session) > maxSessionID {
		return
	}
	if _, known := s.byID[e.Session]; !known && len(s.byID) >= maxSessions {
		for id, old := range s.byID {
			if now.Sub(old.heard) > sessionLife {
				delete(s.byID, id)
			}
		}
		if len(s.byID) >= maxSessions {
			return
		}
	}
	if s.byID == nil {
		s.byID = make(map[string]session)
	}
	s.byID[e.Session] = session{e.UID, now}
}

// user is whose the session is.
func (s *sessions) user(id string) (uid string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.byID[id]
	return v.uid, ok
}
