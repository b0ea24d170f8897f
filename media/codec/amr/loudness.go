package amr

import "math"

// Loudness estimates how loud a stream of AMR-WB frames is without decoding them: from
// the gains alone, some 0.1 µs a frame where decoding takes 25 to 35. It is not safe for
// concurrent use. The zero value is ready.
//
// A speech frame has, for each of its four subframes, an index into a table of pairs: the
// gain of the excitation one pitch period ago, and the correction of the innovation's
// gain against a prediction from the last four (TS 26.190 §5.9, tables and order of bits:
// TS 26.173, TS 26.201 Annex B). Both together give the energy of the excitation; what the
// synthesis filter adds is not looked at and goes into a constant. So a single frame of
// speech is some 9 dB off, a level smoothed over syllables 5; noise of a quiet room is
// within 8, and white noise up to 15 dB louder than it is. A pure tone, which is nearly all
// filter, is estimated far too low: who relies on it compares it with decoded frames now
// and then (Calibrate).
type Loudness struct {
	past [4]float32 // corrections of the last subframes, dB, newest first
	exc  float32    // energy of the excitation, linear
	bias float32    // what decoded frames were louder than this thought, dB
}

// filterGain is what the synthesis filter and the de-emphasis add to speech, dB, less the
// 90.3 dB between a unit sample and full scale.
const filterGain = 14 - 90.3

// knee is the level, dBov, of a voice close to the phone.
const knee = -25

// Silent is the level of nothing, dBov.
const Silent = -127

// Step takes a speech frame (Type 0 to 8) and returns its level in dBov. bits are at
// least Bytes(true, ft) long.
func (l *Loudness) Step(ft uint8, bits []byte) float32 {
	at := &gainBits[2]
	table := gains7[:]
	if ft < 2 {
		at, table = &gainBits[ft], gains6[:]
	}
	var sum float32
	for sub := range at {
		index := 0
		for _, bit := range at[sub] {
			if bit == noBit {
				break
			}
			index = index<<1 | int(bits[bit>>3]>>(7-bit&7))&1
		}
		g := &table[index]
		code := float32(g.code) / 10
		energy := 30 + code + 0.5*l.past[0] + 0.4*l.past[1] + 0.3*l.past[2] + 0.2*l.past[3]
		l.past[3], l.past[2], l.past[1], l.past[0] = l.past[2], l.past[1], l.past[0], code
		pitch := float32(g.pitch) / 100
		l.exc = min(pitch*pitch*l.exc+exp10(energy), 1e9)
		sum += l.exc
	}
	if sum < 1e-3 {
		return Silent
	}
	v := 10*log10(sum/4) + filterGain
	if v < knee { // what is quiet is flatter, and its filter adds less
		v += (v - knee) * 0.28
	}
	return max(v+l.bias, Silent)
}

// tolerance is how far an estimate may be off before Calibrate believes decoding more:
// less than that is what one sound differs from the next.
const tolerance = 8

// Calibrate tells of a frame that was decoded as well: its level, and what Step said.
func (l *Loudness) Calibrate(decoded, estimate float32) {
	off := decoded - estimate
	switch {
	case off > tolerance:
		off -= tolerance
	case off < -tolerance:
		off += tolerance
	default:
		return
	}
	l.bias = min(max(l.bias+off*0.5, -30), 60)
}

func exp10(db float32) float32 { return float32(math.Exp(float64(db) * (math.Ln10 / 10))) }
func log10(v float32) float32  { return float32(math.Log10(float64(v))) }

// gainPair is one entry of a table: hundredths of the pitch gain, tenths of a dB of the
// innovation's correction.
type gainPair struct{ pitch, code int16 }

const noBit = 255

// gainBits are where the bits of a subframe's index lie in the payload, most significant
// first, for 6.60, for 8.85, and for all modes from 12.65 on.
var gainBits = [3][4][7]uint8{
	{{33, 16, 37, 20, 4, 8, noBit}, {29, 17, 35, 21, 5, 9, noBit}, {34, 18, 36, 22, 6, 24, noBit}, {30, 19, 26, 23, 7, 25, noBit}},
	{{12, 32, 20, 24, 28, 16, noBit}, {13, 33, 21, 25, 29, 17, noBit}, {14, 34, 22, 26, 30, 18, noBit}, {15, 35, 23, 27, 31, 19, noBit}},
	{{3, 20, 42, 28, 32, 38, 24}, {4, 21, 43, 29, 33, 39, 25}, {5, 22, 44, 30, 34, 40, 26}, {6, 23, 45, 31, 35, 41, 27}},
}

var gains6 = [64]gainPair{
	{10, -37}, {10, 48}, {19, 100}, {26, 139}, {27, 18}, {31, 68}, {34, 176}, {35, -32},
	{39, -110}, {41, 105}, {47, 47}, {49, 2}, {50, 83}, {54, 126}, {59, 29}, {60, -29},
	{62, 157}, {63, 67}, {66, 102}, {69, 49}, {70, -11}, {71, 15}, {72, -63}, {75, 79},
	{76, 123}, {77, 221}, {77, 44}, {80, -20}, {81, 15}, {82, 95}, {82, 159}, {83, 49},
	{86, 69}, {86, -44}, {88, -8}, {88, 110}, {88, 28}, {89, 138}, {91, 186}, {93, 50},
	{93, 91}, {93, 8}, {95, 73}, {96, -57}, {96, 118}, {97, 153}, {98, 33}, {98, -16},
	{101, 63}, {101, 97}, {103, 13}, {103, -96}, {105, 123}, {107, 44}, {109, 82}, {111, 152},
	{111, -23}, {114, 241}, {114, 205}, {117, 19}, {119, 101}, {119, 60}, {119, 129}, {124, 172},
}

var gains7 = [128]gainPair{
	{1, -133}, {3, -3}, {5, -56}, {7, 35}, {8, 73}, {10, -25}, {11, 107}, {11, -102},
	{12, 11}, {14, 175}, {16, -49}, {16, 56}, {17, 139}, {20, -14}, {21, 22}, {22, -76},
	{24, 89}, {26, 44}, {27, -39}, {29, 0}, {33, 69}, {33, -96}, {34, 212}, {34, 116},
	{34, 35}, {35, -26}, {36, 12}, {40, -57}, {42, 93}, {42, -13}, {42, 55}, {44, -139},
	{45, 23}, {46, 148}, {48, -82}, {49, -3}, {49, -35}, {51, 36}, {51, 74}, {53, 118},
	{55, 9}, {55, -58}, {56, 48}, {57, -20}, {59, 98}, {60, 21}, {62, -95}, {62, 62},
	{63, -4}, {63, -45}, {64, 137}, {65, 33}, {67, -25}, {67, 82}, {68, 10}, {69, 48},
	{72, 104}, {72, -9}, {73, 68}, {73, -40}, {73, 174}, {73, -73}, {73, 28}, {76, 4},
	{77, 51}, {77, 122}, {77, -22}, {79, 22}, {79, 77}, {80, -53}, {81, -118}, {81, 38},
	{82, -5}, {83, 93}, {83, -33}, {83, 14}, {84, 56}, {85, 145}, {87, -15}, {87, 31},
	{87, 113}, {88, 70}, {88, -64}, {88, 9}, {90, -33}, {90, 45}, {91, 89}, {92, 175},
	{92, -4}, {92, 23}, {94, 134}, {94, 60}, {95, 109}, {96, 10}, {96, -20}, {96, 35},
	{96, 80}, {97, -46}, {97, -94}, {99, 49}, {100, -6}, {100, 19}, {101, 67}, {101, 99},
	{101, 153}, {103, 126}, {104, 35}, {104, 190}, {104, -23}, {105, 81}, {106, 3}, {106, -64},
	{107, 221}, {107, 56}, {108, 241}, {111, 117}, {111, 18}, {111, 88}, {114, 41}, {116, -35},
	{118, 165}, {118, 61}, {119, -3}, {120, 138}, {121, 104}, {122, 80}, {122, 28}, {130, 197},
}
