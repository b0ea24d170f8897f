package dialog

import "testing"

// Requests of the peer, RFC 3261 12.2.2.
func TestPeerRequests(t *testing.T) {
	play(t, []script{
		{"unknown dialog", up + `
			> BYE zz 1 -> BYE1=481`},
		{"CSeq order", up + `
			> OPTIONS a 10 -> OPTIONS10=200
			> OPTIONS a 9 -> OPTIONS9=500
			> OPTIONS a 10 -> OPTIONS10=482
			> OPTIONS a 12 -> OPTIONS12=200`},
		{"methods", up + `
			> PRACK a 1 -> PRACK1=481
			> MESSAGE a 2 -> MESSAGE2=405
			> REFER a 3 -> other 1 REFER
			> INFO a 4 body=application/dtmf-relay -> INFO4=200; digit 7
			> INFO a 5 body=text/plain -> INFO5=415
			> INFO a 6 -> INFO6=200
			> UPDATE a 7 -> UPDATE7=200
			> INVITE a 8 body=text/plain -> INVITE8=415`},
		{"re-INVITE, answered, ACK lost twice", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			wait 1600ms -> INVITE5=200; INVITE5=200
			> ACK a 5 ->
			wait 30s ->`},
		{"re-INVITE, refused", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 606 -> INVITE5=606`},
		{"re-INVITE, nobody replies", up + `
			> INVITE a 5 hold -> offer 1 hold
			wait 2s -> INVITE5=488
			reply 1 held ->`},
		{"re-INVITE, nobody acknowledges", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			wait 32s -> INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; INVITE5=200; BYE 2 to a; ended by timeout no_ack connected`},
		{"re-INVITE without description: ours is the offer", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> ACK a 5 theirs -> reoffered 200 theirs to offer 1`},
		{"re-INVITE without description, none in its ACK", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			> ACK a 5 -> reoffered 488 to offer 1`},
		{"re-INVITE without description, cancelled as we reply", up + `
			> INVITE a 5 -> offer 1
			reply 1 ours -> INVITE5=200
			cancelled INVITE5 -> reoffered 487 to offer 1
			> INVITE a 6 -> offer 2
			cancelled INVITE6 ->
			reply 2 ours -> reoffered 488 to offer 2
			reply 2 ours ->`},
		{"re-INVITE without description, the reply comes too late", up + `
			> INVITE a 5 -> offer 1
			wait 2s -> INVITE5=488
			reply 1 ours -> reoffered 488 to offer 1`},
		{"re-INVITE without description while ours waits after glare", up + `
			propose more -> INVITE 2 to a
			< 491 a re ->
			> INVITE a 5 -> offer 1
			reply 1 ours -> reoffered 491; INVITE5=200
			propose again ->
			> ACK a 5 yes -> reoffered 200 yes to offer 1; INVITE 3 to a
			< 200 a re aye -> ACK 3 to a; reoffered 200 aye`},
		{"ACK of another INVITE does not count", up + `
			> INVITE a 5 hold -> offer 1 hold
			reply 1 held -> INVITE5=200
			> ACK a 4 ->
			wait 500ms -> INVITE5=200
			> ACK a 5 ->`},
		{"re-INVITE cancelled", up + `
			> INVITE a 5 hold -> offer 1 hold
			cancelled INVITE5 ->
			reply 1 held ->`},
		{"two offers at once", up + `
			> INVITE a 5 hold -> offer 1 hold
			> UPDATE a 6 more -> UPDATE6=500 Retry-After=2
			reply 1 held -> INVITE5=200
			> ACK a 5 ->
			> UPDATE a 7 more -> offer 2 more
			reply 2 ok -> UPDATE7=200`},
		{"hung up with an offer open", up + `
			> INVITE a 5 hold -> offer 1 hold
			hangup -> BYE 2 to a; INVITE5=487; ended by local hung_up connected`},
	})
}
