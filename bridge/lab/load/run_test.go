package load

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sparkle/media"
	"sparkle/media/codec/amr"
	"sparkle/media/mediapb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func engine(t testing.TB) *media.Engine {
	t.Helper()
	if !amr.Available {
		t.Skip("this build has no AMR-WB")
	}
	e, err := media.New(media.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Counts are judged, not times: the machine may be busy.
func TestAConferenceComesBackWhole(t *testing.T) {
	for _, c := range []Codec{AMRWB(8), AMRWB(2), PCMU(), Opus()} {
		t.Run(c.Name, func(t *testing.T) {
			o := Options{API: engine(t), Legs: 8, Talkers: 3, Codec: c, Turn: 300 * time.Millisecond,
				Warm: 600 * time.Millisecond, Window: time.Second}
			if c != PCMU() {
				o.Onsets = 2
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			// Where the test's machine stalls, the engine skips ticks and says so; each is a
			// frame that every leg misses. Nothing else may be.
			if allowed := r.Engine.SkippedTicks*8 + 8; r.Missing > allowed {
				t.Errorf("%d frames missing, %d ticks skipped", r.Missing, r.Engine.SkippedTicks)
			}
			if r.Frames+r.Missing < 8*40 {
				t.Errorf("%d frames came and %d are missing in %v at 8 legs, want about 400", r.Frames, r.Missing, r.Window)
			}
			if r.Lost != 0 || r.Reordered != 0 || r.GenOverflow != 0 || r.GenRefused != 0 {
				t.Errorf("lost %d, reordered %d, overflow %d, refused %d on loopback", r.Lost, r.Reordered, r.GenOverflow, r.GenRefused)
			}
			if e := r.Engine; e.RxStranger != 0 || e.RxDropped != 0 || e.Ticks == 0 || e.Decodes == 0 {
				t.Errorf("the engine says %+v", e)
			}
			if r.CPU <= 0 || r.RSSBase <= 0 || r.RSSAfter <= 0 || r.Sent == 0 || r.GenLate.Count() == 0 {
				t.Errorf("not measured: CPU %v, RSS %d → %d, sent %d", r.CPU, r.RSSBase, r.RSSAfter, r.Sent)
			}
			if c == PCMU() {
				return
			}
			if r.Onsets != 2 || r.Delay.Count() == 0 || r.Delay.Min() <= 0 {
				t.Errorf("%d onsets, delays: %d from %v", r.Onsets, r.Delay.Count(), r.Delay.Min())
			}
			if r.Delay.Count()+r.Unheard > 2*7 {
				t.Errorf("%d delays and %d unheard of 14", r.Delay.Count(), r.Unheard)
			}
		})
	}
}

func TestTheConferenceIsGoneAfterwards(t *testing.T) {
	e := engine(t)
	if _, err := Run(t.Context(), Options{API: e, Legs: 2, Talkers: 1, Codec: PCMU(), Warm: frameTime, Window: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	s, err := e.Snapshot(t.Context())
	if err != nil || len(s.Conferences) != 0 || len(s.Legs) != 0 {
		t.Errorf("left behind: %v, %v", s, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, Options{API: engine(t), Legs: 2, Talkers: 1, Codec: PCMU(), Window: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run said %v, want the context's end", err)
	}
}

// deaf is an engine whose legs hear nothing: it takes packets and sends none.
type deaf struct{ media.API }

func (d deaf) SetLeg(ctx context.Context, l *mediapb.Leg) error {
	l.Audio.Send = false
	return d.API.SetLeg(ctx, l)
}

func TestSilenceOfTheEngineIsMissing(t *testing.T) {
	r, err := Run(t.Context(), Options{API: deaf{engine(t)}, Legs: 4, Talkers: 2, Codec: PCMU(), Warm: frameTime, Window: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.Frames != 0 || r.Missing != 4*20 {
		t.Errorf("%d frames, %d missing; want 0 and 80", r.Frames, r.Missing)
	}
}

// Who joins meanwhile is not judged, and is in afterwards.
func TestLegsThatJoinMeanwhile(t *testing.T) {
	r, err := Run(t.Context(), Options{API: engine(t), Legs: 8, Joining: 5, Talkers: 2, Codec: AMRWB(2),
		Warm: 400 * time.Millisecond, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if r.Frames == 0 || r.Frames > 3*55 {
		t.Errorf("%d frames at three legs in a second", r.Frames)
	}
	if allowed := r.Engine.SkippedTicks*3 + 3; r.Missing > allowed {
		t.Errorf("%d frames missing, %d ticks skipped", r.Missing, r.Engine.SkippedTicks)
	}
	if err := (Options{Legs: 4, Joining: 3}).Validate(); err == nil || !strings.Contains(err.Error(), "join") {
		t.Errorf("3 of 4 join: %v", err)
	}
}
