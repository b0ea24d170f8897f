package store_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sparkle/bridge"
	"sparkle/bridge/store"
	"sparkle/bridge/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (bridge.Store, func() bridge.Store) {
		path := filepath.Join(t.TempDir(), "a b?c#d%.db") // a path is not a URL
		s := open(t, store.Options{Path: path})
		return s, func() bridge.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, store.Options{Path: path})
			return s
		}
	})
}

func open(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
