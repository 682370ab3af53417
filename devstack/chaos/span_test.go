package main

import (
	"reflect"
	"testing"
)

func TestUnionAndIntersection(t *testing.T) {
	t.Parallel()
	a := union(span{at(5), at(6)}, span{at(1), at(3)}, span{at(2), at(4)}, span{at(4), at(4.5)})
	if want := []span{{at(1), at(4.5)}, {at(5), at(6)}}; !reflect.DeepEqual(a, want) {
		t.Errorf("the union is %v, want %v", a, want)
	}
	common := intersection(a, []span{{at(0), at(2)}, {at(4), at(5.5)}})
	if want := []span{{at(1), at(2)}, {at(4), at(4.5)}, {at(5), at(5.5)}}; !reflect.DeepEqual(common, want) {
		t.Errorf("the intersection is %v, want %v", common, want)
	}
	if none := intersection(a, []span{{at(4.5), at(5)}}); len(none) > 0 {
		t.Errorf("spans that only meet have %v in common", none)
	}
}

func TestTouches(t *testing.T) {
	t.Parallel()
	spans := []span{{at(1), at(2)}}
	for _, tt := range []struct {
		from, to float64
		want     bool
	}{{0, 0.5, false}, {0, 1, true}, {1.2, 1.3, true}, {0, 3, true}, {2.5, 3, false}} {
		if got := touches(spans, at(tt.from), at(tt.to)); got != tt.want {
			t.Errorf("from %v to %v: %v", tt.from, tt.to, got)
		}
	}
	if !touches(prolonged(spans, tickLimit), at(6.5), at(7)) {
		t.Error("a span that was prolonged ends as before")
	}
}

func TestChronicle(t *testing.T) {
	t.Parallel()
	c := newChronicle()
	c.set("up", false)
	if spans := c.of("up"); len(spans) > 0 {
		t.Errorf("what never was has been: %v", spans)
	}
	c.set("up", true)
	c.set("up", true)
	if spans := c.of("up"); len(spans) != 1 {
		t.Errorf("what still is has been %v", spans)
	}
	c.set("up", false)
	if spans := c.of("up"); len(spans) != 1 || !reflect.DeepEqual(spans, c.of("up")) {
		t.Errorf("what has ended goes on: %v", spans)
	}
}

func TestChronicleOfAll(t *testing.T) {
	t.Parallel()
	c := newChronicle()
	c.add("api-1 to MongoDB gone", span{at(1), at(2)})
	c.add("worker-3 to MongoDB gone", span{at(5), at(7)})
	c.add("worker-3 to Redis gone", span{at(10), at(11)})
	if got, want := c.ofAll(" to MongoDB gone"), []span{{at(1), at(2)}, {at(5), at(7)}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
