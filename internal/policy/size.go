// size.go bounds what expressions make. CEL counts what an operation reads; what it
// makes can be as large as a product of that, or a list that has itself as its
// elements, again and again. Kubernetes trusts who writes its expressions, but here a
// namespace's user does.

package policy

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

// maxMade is how much a single call may make: in bytes of text, elements of a list or
// comparisons. CEL's budget is for ten bytes in each unit.
const maxMade = 10 * celconfig.PerCallLimit

// newCompiler is the compiler of Kubernetes, whose programs are bounded.
func newCompiler() authenticationcel.Compiler {
	base := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	bounded, err := base.Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions:        boundedFunctions(base.StoredExpressionsEnv()),
		ProgramOptions: []celgo.ProgramOption{
			celgo.CostTracking(&sizeCost{}), celgo.CostTrackerOptions(untracked(base.StoredExpressionsEnv())...),
			celgo.CustomDecoratorV2(boundedPart), celgo.InterruptCheckFrequency(celconfig.CheckFrequency),
		},
	})
	if err != nil {
		panic("the environment of expressions: " + err.Error()) // it has no input
	}
	return authenticationcel.NewCompiler(bounded)
}

// makes says how much a function would make of its arguments, for those that make more
// than they read.
var makes = map[string]func(args []ref.Val) uint64{
	"replace":         replaced,
	"join":            joined,
	"format":          formatted,
	"split":           parts,
	"quantity":        digits,
	"isQuantity":      digits,
	"indexOf":         func(args []ref.Val) uint64 { return searched(args) / 10 },
	"lastIndexOf":     func(args []ref.Val) uint64 { return searched(args) / 10 },
	"flatten":         func(args []ref.Val) uint64 { return times(elementBytes, elementsIn(args[0])) },
	"distinct":        func(args []ref.Val) uint64 { n := elementsIn(args[0]); return times(n, n) },
	"sets.contains":   pairs,
	"sets.equivalent": pairs,
	"sets.intersects": pairs,
}

// elementBytes is how much an element of a list takes, or a number as a text.
const elementBytes = 32

// untracked leaves the cost of these functions to sizeCost. Their own trackers look at
// the outermost list only.
func untracked(env *celgo.Env) (options []interpreter.CostTrackerOption) {
	for name := range makes {
		for _, o := range env.Functions()[name].OverloadDecls() {
			options = append(options, interpreter.OverloadCostTracker(o.ID(), func([]ref.Val, ref.Val) *uint64 { return nil }))
		}
	}
	return options
}

// boundedFunctions are those of an environment that ask makes first.
func boundedFunctions(env *celgo.Env) (options []celgo.EnvOption) {
	for name, made := range makes {
		function := env.Functions()[name]
		bindings, err := function.Bindings()
		if err != nil {
			panic("the function " + name + ": " + err.Error()) // it has no input
		}
		// Whether the types of arguments are looked at again stays as it is.
		overloads := []celgo.FunctionOpt{decls.DisableTypeGuards(true)}
		for _, o := range function.OverloadDecls() {
			at := slices.IndexFunc(bindings, func(b *functions.Overload) bool { return b.Operator == o.ID() })
			declare := celgo.Overload
			if o.IsMemberFunction() {
				declare = celgo.MemberOverload
			}
			overloads = append(overloads, declare(o.ID(), o.ArgTypes(), o.ResultType(), celgo.FunctionBinding(boundedCall(made, bindings[at]))))
		}
		options = append(options, celgo.Function(name, overloads...))
	}
	return options
}

// boundedCall is a function that is not called where it would make too much.
func boundedCall(made func([]ref.Val) uint64, of *functions.Overload) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		switch {
		case made(args) > maxMade:
			return types.WrapErr(errTooExpensive)
		case len(args) == 1 && of.Unary != nil:
			return of.Unary(args[0])
		case len(args) == 2 && of.Binary != nil:
			return of.Binary(args[0], args[1])
		}
		return of.Function(args...)
	}
}

// replaced is how long a text will be.
func replaced(args []ref.Val) uint64 {
	var texts [3]string
	for i := range texts {
		s, ok := args[i].(types.String)
		if !ok {
			return 0 // there is no such function, and the call says so
		}
		texts[i] = string(s)
	}
	return uint64(len(texts[0])) + times(uint64(strings.Count(texts[0], texts[1])), uint64(len(texts[2]))) //nolint:gosec // never negative
}

// joined is how long a text of all elements will be.
func joined(args []ref.Val) uint64 {
	n := bytesIn(args[0])
	if len(args) == 2 {
		n += times(elementsIn(args[0]), bytesIn(args[1]))
	}
	return n
}

// formatted is how long a text will be: numbers have as many digits as it says.
func formatted(args []ref.Val) uint64 {
	digits := uint64(elementBytes)
	if s, ok := args[0].(types.String); ok {
		for _, n := range precision.FindAllString(string(s), -1) {
			d, err := strconv.ParseUint(n[1:], 10, 32)
			if err != nil {
				return math.MaxInt64
			}
			digits = max(digits, d)
		}
	}
	return bytesIn(args[1]) + times(digits, elementsIn(args[1]))
}

var precision = regexp.MustCompile(`\.[0-9]+`)

// maxExponent is the largest one of a quantity. It is written with a few letters, and
// worked with digit by digit.
const maxExponent = 1000

// digits is how many of them a quantity has.
func digits(args []ref.Val) uint64 {
	s, isText := args[0].(types.String)
	if !isText {
		return 0 // there is no such function, and the call says so
	}
	if at := strings.LastIndexAny(string(s), "eE"); at >= 0 {
		// Of what is no number, such as the suffix E, it makes 0; of one out of range the largest.
		if n, _ := strconv.ParseUint(strings.TrimLeft(string(s[at+1:]), "+-"), 10, 64); n > maxExponent {
			return math.MaxInt64
		}
	}
	return times(uint64(len(s)), elementBytes)
}

// parts is how much a text takes in parts.
func parts(args []ref.Val) uint64 {
	s, isText := args[0].(types.String)
	separator, isSeparator := args[1].(types.String)
	if !isText || !isSeparator {
		return 0 // there is no such function, and the call says so
	}
	return times(elementBytes, uint64(strings.Count(string(s), string(separator)))) //nolint:gosec // never negative
}

// searched is how many letters are compared to find a text in a text.
func searched(args []ref.Val) uint64 {
	s, isText := args[0].(types.String)
	part, isPart := args[1].(types.String)
	if !isText || !isPart {
		return 0 // a list
	}
	return times(uint64(len(s)), uint64(len(part)))
}

// pairs is how many elements of two lists are compared.
func pairs(args []ref.Val) uint64 { return times(elementsIn(args[0]), elementsIn(args[1])) }

func times(a, b uint64) uint64 {
	if a > maxMade || b > maxMade {
		return math.MaxInt64
	}
	return a * b
}

// bytesIn is how many bytes of text there are in a value, and elementsIn how many
// elements, down to the innermost; more than maxMade are not counted.
func bytesIn(v ref.Val) uint64 {
	c := counter{text: func(n int) uint64 { return uint64(n) }} //nolint:gosec // a length
	c.count(v)
	return c.n
}

func elementsIn(v ref.Val) uint64 {
	c := counter{text: func(int) uint64 { return 0 }}
	c.count(v)
	return c.n
}

// counter counts the elements of a value, as often as they are met, and what text
// makes of the lengths of its texts.
type counter struct {
	n    uint64
	text func(length int) uint64
}

func (c *counter) count(v ref.Val) {
	switch v := v.(type) {
	case types.String:
		c.n += c.text(len(v))
	case types.Bytes:
		c.n += c.text(len(v))
	case *types.Optional:
		if v.HasValue() {
			c.count(v.GetValue())
		}
	case traits.Lister:
		for i := v.Iterator(); c.n <= maxMade && i.HasNext() == types.True; {
			c.n++
			c.count(i.Next())
		}
	case traits.Mapper:
		for i := v.Iterator(); c.n <= maxMade && i.HasNext() == types.True; {
			c.n++
			key := i.Next()
			c.count(key)
			if value, found := v.Find(key); found {
				c.count(value)
			}
		}
	}
}

// sizeCost is what Kubernetes says that calls cost, but for lists and maps, where all
// that is in them counts, however deep; and for texts and lists that are made.
type sizeCost struct{ library.CostEstimator }

// CallCost implements interpreter.ActualCostEstimator.
func (e *sizeCost) CallCost(function, overloadID string, args []ref.Val, result ref.Val) *uint64 {
	cost := e.CostEstimator.CallCost(function, overloadID, args, result)
	size := max(sizeOf(function, overloadID, args, result), readOf(function, args))
	if size == 0 || cost != nil && *cost >= size {
		return cost
	}
	return &size
}

// kept is how often an element of a list counts that becomes a part of another one: there
// a few letters repeat it, and nobody counts them.
const kept = 20

// sizeOf is what is in the lists and maps of a call; 0 where it does not look at that.
func sizeOf(function, overload string, args []ref.Val, result ref.Val) uint64 {
	switch function {
	case "size", "dyn": // they know without a look
		return 0
	case "replace", "format":
		return bytesIn(result) / 10 // as for other texts
	case "split":
		return elementsIn(result)
	case compiledPattern, otherPattern:
		return max(searchCost(function, overload, args), elementsIn(result))
	case writtenFunction:
		if _, isMap := result.(traits.Mapper); isMap {
			return max(writtenMap, elementsIn(result))
		}
		return max(writtenList, elementsIn(result))
	case "indexOf", "lastIndexOf":
		return max(searched(args)/100, weigh(args))
	case "distinct", "sets.contains", "sets.equivalent", "sets.intersects":
		return max(makes[function](args), weigh(args))
	case operators.In:
		if _, isMap := args[1].(traits.Mapper); isMap { // it is found without a look at the others
			return 0
		}
	case operators.Add, "cel.@mapInsert": // what is added to has been counted before
		if n := weigh(args[1:]); n > 1 { // more than the one element of a loop
			return kept * n
		}
		return 0
	case "optional.of", "optional.ofNonZeroValue":
		return kept * weigh(args)
	}
	return weigh(args)
}

// readOf is what it costs to read the texts of a call, all of them: even their sizes are
// not known without. 0 where that is not looked at, or already in the cost.
func readOf(function string, args []ref.Val) (n uint64) {
	switch function {
	case "dyn", "contains", compiledPattern, otherPattern, writtenFunction:
		return 0
	}
	for _, v := range args {
		switch v := v.(type) {
		case types.String:
			n += uint64(len(v))
		case types.Bytes:
			n += uint64(len(v))
		case apiservercel.URL:
			n += uint64(len(v.String()))
		case apiservercel.Semver:
			n += uint64(len(v.String()))
		case types.Timestamp:
			if len(args) == 2 && args[1].Type() == types.StringType { // a time zone is read from a file
				n += zoneBytes
			}
		}
	}
	return (n + 9) / 10
}

// zoneBytes is how much text can be read in the time that it takes to find a time zone.
const zoneBytes = 3000

// weigh counts what is in the lists and maps among some values. Short texts weigh
// nothing, so that one element is one, as ever.
func weigh(values []ref.Val) uint64 {
	c := counter{text: func(n int) uint64 { return uint64(n / 100) }} //nolint:gosec // a length
	for _, v := range values {
		switch v.(type) {
		case traits.Lister, traits.Mapper, *types.Optional:
			c.count(v)
		}
	}
	return c.n
}
