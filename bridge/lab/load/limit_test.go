package load

import (
	"errors"
	"testing"
)

func TestSearchFindsTheLimit(t *testing.T) {
	for _, tt := range []struct{ limit, start, step, most int }{
		{1234, 250, 10, 4000}, {1234, 3000, 10, 4000}, {57, 25, 10, 4000}, {9999, 100, 10, 4000},
		{5, 100, 10, 4000}, {400, 200, 2, 4000}, {10, 10, 10, 10}, {95, 40, 30, 100},
	} {
		tries := 0
		got, err := search(tt.start, tt.step, tt.most, func(n int) (bool, error) {
			if tries++; n < tt.step || n > tt.most || n%tt.step != 0 {
				t.Fatalf("%+v: tried %d", tt, n)
			}
			return n <= tt.limit, nil
		})
		want := min(tt.limit, tt.most)
		if err != nil || got > want || want-got > max(want/8, tt.step) || tries > 14 {
			t.Errorf("%+v: %d after %d tries, %v", tt, got, tries, err)
		}
	}
	if _, err := search(10, 10, 100, func(int) (bool, error) { return false, errors.New("broken") }); err == nil {
		t.Error("a fault is not told")
	}
}
