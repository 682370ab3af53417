package grafana_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"go.yaml.in/yaml/v3"
)

const folder = "../../deploy/grafana/"

// width is the width of Grafana's grid, in columns.
const width = 24

// classic is the form of dashboards that every Grafana reads from files and imports.
type classic = dashboard.Dashboard //nolint:staticcheck // deprecated in favour of the newer one

func init() { // the panels and queries that the dashboard uses; all others are refused
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(folder + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func load(t *testing.T) classic {
	t.Helper()
	var d classic
	if err := json.Unmarshal(read(t, "dashboards/codex-jobs.json"), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// strict are the types that refuse what Grafana does not know.
type strict interface{ UnmarshalJSONStrict(raw []byte) error }

// mistakes returns the parts that Grafana would not understand. The value that was read is of no use: the types always
// return an error, even if it is empty, and then stop short.
func mistakes(raw []byte, into strict) error {
	err := into.UnmarshalJSONStrict(raw)
	var all cog.BuildErrors
	if errors.As(err, &all) && len(all) == 0 {
		return nil
	}
	return err
}

// panels returns the panels with data, and checks that all have a place.
func panels(t *testing.T) []dashboard.Panel {
	t.Helper()
	var all []dashboard.Panel
	for _, p := range load(t).Panels {
		switch {
		case p.Panel != nil:
			all = append(all, *p.Panel)
		case len(p.RowPanel.Panels) > 0:
			t.Errorf("the row %q is collapsed, and the tests do not look into it", *p.RowPanel.Title)
		}
	}
	if len(all) == 0 {
		t.Fatal("there are no panels")
	}
	return all
}

func TestGrafanaUnderstandsTheDashboard(t *testing.T) {
	t.Parallel()
	text := read(t, "dashboards/codex-jobs.json")
	if err := check(text); err != nil {
		t.Fatal(err)
	}

	// The check finds mistakes.
	for name, mistake := range map[string]struct{ old, new string }{
		"of the whole":     {`"graphTooltip"`, `"graphTooltips"`},
		"of a variable":    {`"includeAll"`, `"includeAny"`},
		"of a panel":       {`"datasource"`, `"datasources"`},
		"of a query":       {`"legendFormat"`, `"legend"`},
		"missing":          {`"expr"`, `"hide"`},
		"of a stat":        {`"graphMode"`, `"graphStyle"`},
		"of a time series": {`"displayMode": "list"`, `"displayType": "list"`},
		"of its lines":     {`"spanNulls"`, `"spanGaps"`},
		"of a field":       {`"unit"`, `"units"`},
		"of a threshold":   {`"color": "red"`, `"colour": "red"`},
		"of another type":  {`"fillOpacity": 10`, `"fillOpacity": "10"`},
	} {
		broken := bytes.Replace(text, []byte(mistake.old), []byte(mistake.new), 1)
		if bytes.Equal(broken, text) || check(broken) == nil {
			t.Errorf("nothing is said of a field %s: %s in the place of %s", name, mistake.new, mistake.old)
		}
	}
}

// check returns the parts of a dashboard that Grafana would not understand. It checks queries and the display of fields one
// by one, because the types do not check them within the whole.
func check(text []byte) error {
	wrong := mistakes(text, new(classic))
	var raw struct {
		Panels []struct {
			Title       string
			Targets     []json.RawMessage
			FieldConfig json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	for _, p := range raw.Panels {
		for _, query := range p.Targets {
			if err := mistakes(query, new(prometheus.Dataquery)); err != nil {
				wrong = errors.Join(wrong, fmt.Errorf("%s: %w", p.Title, err))
			}
		}
		if p.FieldConfig == nil {
			continue // a row
		}
		if err := mistakes(p.FieldConfig, new(dashboard.FieldConfigSource)); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %w", p.Title, err))
		}
	}
	return wrong
}

// Each panel has a title and a description.
func TestPanelsAreForPeople(t *testing.T) {
	t.Parallel()
	source := uid(t)
	titles := make(map[string]int)
	for _, p := range panels(t) {
		if p.Title == nil || p.Description == nil || !strings.HasSuffix(*p.Description, ".") {
			t.Fatalf("panel %d has no title, or no description that is a sentence", *p.Id)
		}
		titles[*p.Title]++
		if p.Datasource == nil || *p.Datasource.Uid != source {
			t.Errorf("%s does not ask the source that is provisioned, %s", *p.Title, source)
		}
		if p.Type != stat.VariantConfig().Identifier && p.Type != timeseries.VariantConfig().Identifier {
			t.Errorf("%s is a %s, whose options are not checked", *p.Title, p.Type)
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s asks nothing", *p.Title)
		}
		refs := make(map[string]bool)
		for _, target := range p.Targets {
			q, ok := target.(*prometheus.Dataquery)
			if !ok || strings.TrimSpace(q.Expr) == "" || q.RefId == nil || refs[*q.RefId] {
				t.Fatalf("%s has a query that is none, or not named: %+v", *p.Title, target)
			}
			refs[*q.RefId] = true
			if p.Type == "timeseries" && q.LegendFormat == nil {
				t.Errorf("%s has no legend for %s", *p.Title, q.Expr)
			}
			if instant := q.Instant != nil && *q.Instant; instant != (p.Type == "stat") {
				t.Errorf("%s asks for all of the time, or for a moment only, unlike a %s", *p.Title, p.Type)
			}
		}
	}
	for title, n := range titles {
		if duplicate := n > 1 && title != "Since the last tick"; duplicate { // a number, and its graph
			t.Errorf("%d panels are called %s", n, title)
		}
	}
}

// Each panel has an ID and a place of its own.
func TestLayout(t *testing.T) {
	t.Parallel()
	taken := make(map[[2]uint32]uint32)
	ids := make(map[uint32]bool)
	for _, p := range load(t).Panels {
		var id uint32
		var at *dashboard.GridPos
		if p.Panel != nil {
			if p.Panel.Id == nil {
				t.Fatal("a panel has no ID")
			}
			id, at = *p.Panel.Id, p.Panel.GridPos
		} else {
			id, at = p.RowPanel.Id, p.RowPanel.GridPos
		}
		if ids[id] || id == 0 || at == nil || at.W == 0 || at.H == 0 || at.X+at.W > width {
			t.Fatalf("panel %d has the ID of another one, or a place that is none: %+v", id, at)
		}
		ids[id] = true
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other, ok := taken[[2]uint32{x, y}]; ok {
					t.Fatalf("the panels %d and %d overlap", other, id)
				}
				taken[[2]uint32{x, y}] = id
			}
		}
	}
}

// The queries use the variables that there are, and each variable is used.
func TestVariables(t *testing.T) {
	t.Parallel()
	source := uid(t)
	used := make(map[string]bool)
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(target.(*prometheus.Dataquery).Expr, -1) {
				used[m[1]] = true
			}
		}
	}
	for _, v := range load(t).Templating.List {
		if v.Datasource == nil || *v.Datasource.Uid != source {
			t.Errorf("the variable %s does not ask the source that is provisioned, %s", v.Name, source)
		}
		if !used[v.Name] {
			t.Errorf("the variable %s is not used", v.Name)
		}
		delete(used, v.Name)
	}
	for name := range used {
		if !strings.HasPrefix(name, "__") { // Grafana's own
			t.Errorf("there is no variable %s", name)
		}
	}
}

// uid returns the UID of the provisioned data source.
func uid(t *testing.T) string {
	t.Helper()
	var file struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool           `yaml:"isDefault"`
			Editable                     bool           `yaml:"editable"`
			JSONData                     map[string]any `yaml:"jsonData"`
		}
	}
	strictly(t, "provisioning/datasources/codex-jobs.yml", &file)
	if file.APIVersion != 1 || len(file.Datasources) != 1 || file.Datasources[0].Type != "prometheus" {
		t.Fatalf("the sources are %+v", file)
	}
	return file.Datasources[0].UID
}

func TestDashboardsAreProvisioned(t *testing.T) {
	t.Parallel()
	var file struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type            string
			DisableDeletion       bool              `yaml:"disableDeletion"`
			AllowUIUpdates        bool              `yaml:"allowUiUpdates"`
			UpdateIntervalSeconds int               `yaml:"updateIntervalSeconds"`
			Options               map[string]string `yaml:"options"`
		}
	}
	strictly(t, "provisioning/dashboards/codex-jobs.yml", &file)
	if file.APIVersion != 1 || len(file.Providers) != 1 || file.Providers[0].Type != "file" {
		t.Fatalf("the providers are %+v", file)
	}
	compose, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	if path := file.Providers[0].Options["path"]; !bytes.Contains(compose, []byte("./deploy/grafana/dashboards:"+path+":ro")) {
		t.Errorf("the dashboards are looked for in %s, where docker-compose.yml puts none", path)
	}
}

// strictly reads a YAML file with these fields and no others.
func strictly(t *testing.T, name string, v any) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(read(t, name)))
	decoder.KnownFields(true)
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
