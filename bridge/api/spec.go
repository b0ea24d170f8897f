package api

import (
	_ "embed"
	"fmt"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"sparkle/bridge/accounts"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml

//go:embed openapi.yaml
var specYAML []byte

// Spec is the contract as it is embedded and served at /openapi.yaml.
func Spec() []byte { return specYAML }

// Who may ask, beside the scopes of package accounts.
const (
	scopeNone  = "none"  // anybody
	scopeAny   = "any"   // any known caller
	scopeLocal = "local" // a known caller, or one on this machine
)

// operation is what the contract says of one route and the server enforces.
type operation struct {
	id    string
	scope string           // x-scope
	body  *openapi3.Schema // JSON request body; nil: none
}

// operations is the contract, read once: every route with its scope, by mux pattern.
var operations = sync.OnceValues(readOperations)

// readOperations fails on a route without a known scope, so that a new one is never
// open by mistake.
func readOperations() (map[string]operation, error) {
	doc, err := openapi3.NewLoader().LoadFromData(specYAML)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	ops := map[string]operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			scope, _ := op.Extensions["x-scope"].(string)
			switch accounts.Scope(scope) {
			case scopeNone, scopeAny, scopeLocal, accounts.ConfRead, accounts.ConfWrite, accounts.CallDial,
				accounts.MemberWhisper, accounts.AdminScope:
			default:
				return nil, fmt.Errorf("openapi.yaml: %s %s: x-scope %q is none we know", method, path, scope)
			}
			o := operation{id: op.OperationID, scope: scope}
			if op.RequestBody != nil {
				media := op.RequestBody.Value.Content.Get("application/json")
				if media == nil {
					return nil, fmt.Errorf("openapi.yaml: %s %s: body is not JSON", method, path)
				}
				o.body = media.Schema.Value
			}
			ops[method+" "+path] = o
		}
	}
	return ops, nil
}
