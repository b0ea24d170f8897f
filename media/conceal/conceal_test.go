package conceal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// A tone of any pitch goes on through a loss of any length, fades, and comes back: nowhere
// does it step, and the first frame is as loud as it was.
func TestALossInAToneIsNotHeard(t *testing.T) {
	const amplitude = 8000
	for _, rate := range []int{8000, 16000} {
		for _, hz := range []float64{90, 160, 211, 430, 997, 1300} {
			for lost := 1; lost <= 4; lost++ {
				t.Run(fmt.Sprintf("%d Hz, %v Hz, %d lost", rate, hz, lost), func(t *testing.T) {
					var c Concealer
					frame := make([]int16, rate/50)
					var heard []float64
					n := 0
					for k := range 12 {
						for i := range frame {
							frame[i] = int16(amplitude * math.Sin(2*math.Pi*hz*float64(n)/float64(rate)))
							n++
						}
						if k >= 6 && k < 6+lost {
							c.Lost(frame, rate)
						} else {
							c.Came(frame, rate)
						}
						for _, v := range frame {
							heard = append(heard, float64(v))
						}
					}
					w := 2 * math.Cos(2*math.Pi*hz/float64(rate))
					kink, own := 0.0, 2*math.Pi*hz/float64(rate)*amplitude
					for i := 2; i < len(heard); i++ {
						kink = max(kink, math.Abs(heard[i]-w*heard[i-1]+heard[i-2]))
					}
					if limit := own*0.35 + 100; kink > limit {
						t.Errorf("a kink of %.0f, want at most %.0f", kink, limit)
					}
					first := heard[6*len(frame) : 7*len(frame)]
					if db := 20 * math.Log10(rms(first)/(amplitude/math.Sqrt2)); math.Abs(db) > 1.5 {
						t.Errorf("the first lost frame is %+.1f dB", db)
					}
					if last := heard[(5+lost)*len(frame) : (6+lost)*len(frame)]; lost == 4 && rms(last) != 0 {
						t.Errorf("after 60 ms there is still %.0f", rms(last))
					}
				})
			}
		}
	}
}

func rms(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum / float64(len(x)))
}

// Nothing before, noise, and full scale: no panic, no wrap.
func TestOddPasts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, rate := range []int{8000, 16000} {
		for name, sample := range map[string]func() int16{
			"nothing":    func() int16 { return 0 },
			"noise":      func() int16 { return int16(r.Int32()) },
			"full scale": func() int16 { return int16(math.MinInt16 + 65535*r.IntN(2)) },
		} {
			var c Concealer
			frame := make([]int16, rate/50)
			c.Lost(frame, rate)
			if frame[0] != 0 {
				t.Errorf("%s: something was made up of nothing", name)
			}
			for k := range 200 {
				for i := range frame {
					frame[i] = sample()
				}
				if k%7 < 3 {
					c.Lost(frame, rate)
				} else {
					c.Came(frame, rate)
				}
			}
		}
	}
}

func TestZeroAllocations(t *testing.T) {
	var c Concealer
	var frame [320]int16
	if n := testing.AllocsPerRun(100, func() { c.Came(frame[:], 16000); c.Lost(frame[:], 16000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCame(b *testing.B) {
	var c Concealer
	var frame [160]int16
	for b.Loop() {
		c.Came(frame[:], 8000)
	}
}

func BenchmarkLost(b *testing.B) {
	var c Concealer
	var frame [160]int16
	for i := range frame {
		frame[i] = int16(1000 * math.Sin(float64(i)/5))
	}
	for b.Loop() {
		c.Came(frame[:], 8000)
		c.Lost(frame[:], 8000)
	}
}
