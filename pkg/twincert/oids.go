package twincert

import (
	"encoding/asn1"
)

// Object identifiers. Ours lie under 2.25, the arc of UUIDs (ITU-T X.667), below one whose
// value fits 31 bits: Go's X.509 parser reads no larger component in an extended key usage.
var (
	oidX25519      = asn1.ObjectIdentifier{1, 3, 101, 110}            // RFC 8410 3
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}              // RFC 5280 4.2.1.3
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}              // RFC 5280 4.2.1.12
	oidSDA         = asn1.ObjectIdentifier{2, 5, 29, 9}               // subjectDirectoryAttributes, RFC 5280 4.2.1.8
	oidAltKey      = asn1.ObjectIdentifier{2, 5, 29, 72}              // subjectAltPublicKeyInfo, X.509 (2019) 9.8
	oidIPAddrBlock = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7} // RFC 3779 2.2.1
	oidDeltaCRL    = asn1.ObjectIdentifier{2, 5, 29, 27}              // deltaCRLIndicator, RFC 5280 5.2.4
	oidIssuingDP   = asn1.ObjectIdentifier{2, 5, 29, 28}              // issuingDistributionPoint, RFC 5280 5.2.5
	oidArc         = asn1.ObjectIdentifier{2, 25, 1913402719}         // ours
	oidEKURouter   = append(oidArc[:len(oidArc):len(oidArc)], 1, 1)   // bearer is a router
	oidEKUUser     = append(oidArc[:len(oidArc):len(oidArc)], 1, 2)   // bearer is a user
	oidScope       = append(oidArc[:len(oidArc):len(oidArc)], 2, 1)   // attribute: whose keys this router may ask for
)
