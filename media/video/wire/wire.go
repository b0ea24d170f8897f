// Package wire is how the media process and a video process talk over a socket
// pair: small binary messages, each behind its length.
//
//	length (4 octets, big endian, of what follows) | type (1) | body
//
// Bodies that carry pictures are binary; rare ones are JSON. Both ends are always of
// the same build, since one starts the other from its own executable, so there is no
// version in it. A reader checks every length before it allocates: a broken or
// hostile video process can end its connection, nothing more.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Type is what a message is.
type Type byte

// Messages to the video process.
const (
	TypeConference Type = iota + 1 // JSON Conference: the whole wanted state
	TypeClose                      // JSON Conference: only the ID counts
	TypeUnit                       // Unit: a source's access unit
	TypeKeyFrame                   // ID of a tier: it wants a key frame
	TypePreview                    // JSON Preview
	TypePing                       // ID: answered with TypePong by a healthy process
)

// Messages from the video process.
const (
	TypeHello   Type = iota + 65 // JSON Hello: it is ready
	TypeEncoded                  // Unit: a tier's access unit
	TypeSource                   // JSON Source: how decoding of a source goes
	TypeJPEG                     // ID of the preview, then the picture; empty: none
	TypePong                     // JSON Pong
)

// MaxMessage bounds a message: the largest access unit and its head.
const MaxMessage = 4<<20 + 64

// ErrMessage says that the other end broke the protocol.
var ErrMessage = errors.New("wire: bad message")

// Conference is the wanted state of one conference's picture.
type Conference struct {
	ID    string `json:"id"`
	Tiles []Tile `json:"tiles,omitempty"`
	Tiers []Tier `json:"tiers,omitempty"`
}

// Tile is one member to draw, in the order of drawing.
type Tile struct {
	Leg     string `json:"leg"`
	Name    string `json:"name"`
	Talking bool   `json:"talking,omitempty"`
	Muted   bool   `json:"muted,omitempty"`
	Source  uint32 `json:"source,omitempty"` // whose pictures to show; 0: avatar
}

// Tier is one encoding of the mosaic.
type Tier struct {
	ID         uint32 `json:"id"`
	Width      int    `json:"w"`
	Height     int    `json:"h"`
	FPS        int    `json:"fps"`
	BitrateBps int    `json:"bps"`
	Profile    string `json:"profile"` // profile-level-id
	MaxSlice   int    `json:"slice,omitempty"`
	// KeyEvery is the time between key frames that nobody asks for, as somebody cannot; 0: all can.
	KeyEvery time.Duration `json:"key,omitempty"`
}

// Preview asks for a JPEG of a conference.
type Preview struct {
	ID         uint32 `json:"id"`
	Conference string `json:"conference"`
	Quality    int    `json:"quality"`
}

// Hello is a video process's first message.
type Hello struct {
	PID     int      `json:"pid"`
	Encoder string   `json:"encoder"` // name and version
	Sprop   string   `json:"sprop"`   // sprop-parameter-sets of a typical handset's tier
	Sandbox []string `json:"sandbox"` // what confines the process
	Lacking []string `json:"lacking"` // what could not be had, and why
}

// Source is a decoder's news, sent when it changes.
type Source struct {
	ID      uint32 `json:"id"`
	Width   int    `json:"w"` // of the pictures, 0 before the first
	Height  int    `json:"h"`
	NeedKey bool   `json:"needKey,omitempty"` // the decoder cannot go on without a key frame
}

// Pong says that the process makes progress, and what it has done.
type Pong struct {
	ID    uint32          `json:"id"`
	CPUms int64           `json:"cpu"`
	Rooms map[string]Room `json:"rooms,omitempty"`
}

// Room is a conference's counters since the process began.
type Room struct {
	Tiles, Tiers                          uint32
	Composed, Encoded, DecodeErrors, Keys uint64
	Busy                                  time.Duration // of its one goroutine
}

// Unit is a picture of a source or of a tier.
type Unit struct {
	ID      uint32
	Key     bool
	Damaged bool  // packets are missing in or before it (rtp264.AccessUnit)
	Rotate  uint8 // CVO: quarter turns clockwise to show it upright, 0..3
	Mirror  bool  // CVO: flip
	At      int64 // nanoseconds since the Unix epoch: when it was made; of a source: when it is due
	Data    []byte
}

const unitHead = 4 + 1 + 8

// AppendUnit appends a whole message to b.
func AppendUnit(b []byte, t Type, u *Unit) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+unitHead+len(u.Data)))
	b = append(b, byte(t))
	b = binary.BigEndian.AppendUint32(b, u.ID)
	flags := u.Rotate & 3
	if u.Mirror {
		flags |= 4
	}
	if u.Key {
		flags |= 8
	}
	if u.Damaged {
		flags |= 16
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(u.At))
	return append(b, u.Data...)
}

// ParseUnit reads a Unit's body; Data points into it.
func ParseUnit(body []byte) (u Unit, err error) {
	if len(body) < unitHead {
		return u, fmt.Errorf("%w: unit of %d octets", ErrMessage, len(body))
	}
	f := body[4]
	return Unit{ID: binary.BigEndian.Uint32(body), Rotate: f & 3, Mirror: f&4 != 0, Key: f&8 != 0, Damaged: f&16 != 0,
		At: int64(binary.BigEndian.Uint64(body[5:])), Data: body[unitHead:]}, nil
}

// AppendID appends a message whose body is a number and then data.
func AppendID(b []byte, t Type, id uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(1+4+len(data)))
	b = binary.BigEndian.AppendUint32(append(b, byte(t)), id)
	return append(b, data...)
}

// ParseID reads a number and what follows it.
func ParseID(body []byte) (uint32, []byte, error) {
	if len(body) < 4 {
		return 0, nil, fmt.Errorf("%w: number of %d octets", ErrMessage, len(body))
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// AppendJSON appends a message whose body is v in JSON. v is one of this package's
// types, so encoding cannot fail.
func AppendJSON(b []byte, t Type, v any) []byte {
	j, err := json.Marshal(v)
	if err != nil {
		panic("wire: a message that is not JSON: " + err.Error())
	}
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(j)))
	return append(append(b, byte(t)), j...)
}

// ParseJSON reads a JSON body into v.
func ParseJSON(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", ErrMessage, err)
	}
	return nil
}

// Reader reads messages.
type Reader struct {
	R   io.Reader
	buf []byte
}

// Next reads one message; the body is valid until the next call. Errors are the
// underlying reader's or ErrMessage.
func (r *Reader) Next() (Type, []byte, error) {
	var head [5]byte
	if cap(r.buf) < 4096 {
		r.buf = make([]byte, 4096)
	}
	if _, err := io.ReadFull(r.R, r.buf[:5]); err != nil {
		return 0, nil, err
	}
	copy(head[:], r.buf[:5])
	n := int(binary.BigEndian.Uint32(head[:])) - 1
	if n < 0 || n > MaxMessage {
		return 0, nil, fmt.Errorf("%w: length %d", ErrMessage, n+1)
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n+n/4)
	}
	body := r.buf[:n]
	if _, err := io.ReadFull(r.R, body); err != nil {
		return 0, nil, err
	}
	return Type(head[4]), body, nil
}
