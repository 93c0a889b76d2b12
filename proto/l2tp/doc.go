// Package l2tp reads and writes L2TP version 2 (RFC 2661): control messages and their
// AVPs, and the data header in all its forms.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|T|L|x|x|S|x|O|P|x|x|x|x|  Ver  |          Length (opt)         |
//	|           Tunnel ID           |           Session ID          |
//	|             Ns (opt)          |             Nr (opt)          |
//	|      Offset Size (opt)        |    Offset pad... (opt)        |
//
// A control message has T, L and S set and Ver 2; its body is a list of AVPs, the first
// of which is Message Type:
//
//	|M|H| rsvd  |      Length       |           Vendor ID           |
//	|         Attribute Type        |        Attribute Value...     |
//
// An AVP's vendor is looked at before its type. An unknown one with the M bit ends the
// tunnel or session that the message belongs to, one without it is passed over.
// Packages reliable and tunnel hold the machines.
package l2tp
