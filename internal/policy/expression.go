// expression.go compiles and evaluates CEL.

package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/lazy"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

// Names of the variables.
const claimsVariable, userVariable = "claims", "user"

// compiler is expensive to make and safe for concurrent use.
var compiler = sync.OnceValue(newCompiler)

// expression is a compiled expression.
type expression struct {
	field, message string
	program        celgo.Program
	ast            *celgo.Ast
}

func compileClaims(field string, of authenticationcel.ExpressionAccessor) (*expression, error) {
	if err := checkGrowth(field, of.GetExpression()); err != nil {
		return nil, err
	}
	result, err := compiler().CompileClaimsExpression(of)
	return compiled(field, result, err)
}

func compileUserRule(field, text string) (*expression, error) {
	if err := checkGrowth(field, text); err != nil {
		return nil, err
	}
	result, err := compiler().CompileUserExpression(&authenticationcel.UserValidationCondition{Expression: text})
	return compiled(field, result, err)
}

func compiled(field string, result authenticationcel.CompilationResult, err error) (*expression, error) {
	if err != nil {
		return nil, &Error{Field: field, Detail: err.Error()}
	}
	return &expression{field: field, program: result.Program, ast: result.AST}, nil
}

// budget is what all expressions of one token may cost together, in CEL's unit:
// what Kubernetes lets a single one cost, about a tenth of a second.
type budget struct {
	spent uint64
	// ctx ends an evaluation that takes too long.
	ctx context.Context //nolint:containedctx // it is that of a call of bounded
	// stopped: it has ended one.
	stopped bool
}

// errTooExpensive: the budget is spent.
var errTooExpensive = errors.New("the expressions cost too much")

// evaluate evaluates an expression. Its error may hold values of claims.
func (b *budget) evaluate(e *expression, variable string, value traits.Mapper) (ref.Val, error) {
	result, details, err := e.program.ContextEval(b.ctx, map[string]any{variable: value})
	if details != nil {
		if cost := details.ActualCost(); cost != nil {
			b.spent += *cost
		}
	}
	switch {
	case err != nil:
		b.stopped = b.stopped || b.ctx.Err() != nil
		return nil, err
	case b.spent > celconfig.PerCallLimit:
		return nil, errTooExpensive
	}
	return result, nil
}

// holds evaluates a rule.
func (b *budget) holds(e *expression, variable string, value traits.Mapper) bool {
	result, err := b.evaluate(e, variable, value)
	return err == nil && result == types.True
}

// errNotStrings: an expression's result is of the wrong type.
var errNotStrings = errors.New("neither a string, nor a list of strings, nor null")

// strings evaluates an expression whose result is a string, a list of strings, or
// null for none. Empty strings are left out.
func (b *budget) strings(e *expression, value traits.Mapper) (all []string, list bool, err error) {
	result, err := b.evaluate(e, claimsVariable, value)
	if err != nil {
		return nil, false, err
	}
	switch r := result.(type) {
	case types.Null:
	case types.String:
		all = []string{string(r)}
	case traits.Lister:
		native, err := r.ConvertToNative(reflect.TypeFor[[]string]())
		texts, ok := native.([]string)
		if err != nil || !ok {
			return nil, false, errNotStrings
		}
		all, list = texts, true
	default:
		return nil, false, errNotStrings
	}
	return nonEmpty(all), list, nil
}

func nonEmpty(all []string) []string {
	var kept []string
	for _, s := range all {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

// claimsValue is the variable "claims". Numbers are doubles, as they are in
// Kubernetes. Values are decoded when they are asked for.
func claimsValue(claims jose.Object) traits.Mapper {
	m := lazy.NewMapValue(types.NewObjectType("kubernetes.claims"))
	for name, raw := range claims.All() {
		m.Append(name, func(*lazy.MapValue) ref.Val {
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				return types.NewErr("claim %q cannot be read", name)
			}
			return unescaped(types.DefaultTypeAdapter.NativeToValue(v))
		})
	}
	return m
}

// unescaped lets a path reach members whose names are no identifiers: a.b__dot__c
// is the member "b.c" of a, as in other expressions of Kubernetes. The map of the
// claims itself does so already. It does what the API server does, and no more, or a
// rule would mean something else here: neither "in" nor loops know of escapes.
func unescaped(v ref.Val) ref.Val {
	switch v := v.(type) {
	case traits.Mapper:
		return unescapedMap{v}
	case traits.Lister:
		return unescapedList{v}
	}
	return v
}

type unescapedMap struct{ traits.Mapper }

// Find implements traits.Mapper. A name that is no escaped one is meant as it is:
// not to find a member is to let pass who must not have it.
func (m unescapedMap) Find(key ref.Val) (ref.Val, bool) {
	if name, isText := key.(types.String); isText {
		if plain, ok := apiservercel.Unescape(string(name)); ok {
			key = types.String(plain)
		}
	}
	v, found := m.Mapper.Find(key)
	return unescaped(v), found
}

type unescapedList struct{ traits.Lister }

// Get implements traits.Indexer.
func (l unescapedList) Get(index ref.Val) ref.Val { return unescaped(l.Lister.Get(index)) }

// value is where a value comes from: a claim, or an expression.
type value struct {
	claim      string
	expression *expression
}

func compileValue(field, claim, text string) (value, error) {
	if text == "" {
		return value{claim: claim}, nil
	}
	e, err := compileClaims(field+".expression", &authenticationcel.ClaimMappingExpression{Expression: text})
	if err != nil {
		return value{}, err
	}
	return value{expression: e}, nil
}

// path says where the value comes from, for a log.
func (v value) path() string {
	if v.expression != nil {
		return v.expression.field
	}
	return fmt.Sprintf("the claim %q", v.claim)
}
