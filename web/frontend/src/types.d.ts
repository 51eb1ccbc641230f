// The documents of the API, as far as pages read them.
export interface Metric {
  name: string; family: string; kind: string; keyed: boolean; description: string; labels: string[];
  processes: string[]; channels: string[]; first_date: string | null; last_date: string | null;
  pings: number; definitions: number; expires: string | null;
}
export interface Totals { pings: number; clients: number; samples: number; sum: number; mean: number | null }
export interface Bucket { start: number; end: number | null; label: string | null }
export interface Option { value: string; pings: number }
export interface Hidden { name: string; clients: number; dates: number; minimum_clients: number }
export interface UsedDefinition { definition: string; pings: number; first_date: string | null; last_date: string | null }
export interface Selection {
  metric: string; channel: string[]; application: string[]; os: string[]; architecture: string[]; process: string[];
  versions: string | null; key: string[]; rest: boolean; ping: string | null; by: "build" | "submission";
  dates: string | null; compare: string | null; weight: "samples" | "client"; definition: string | null;
  percentiles: string[]; trim: boolean;
}
export interface Answer {
  metric: Metric; selection: Selection; chosen_here: string[];
  data: { version: string; built_at: string; data_until: string | null; preliminary_date: string | null };
  options: Record<string, Option[]>; first_date: string | null; last_date: string | null; minimum_clients: number;
  definition: string | null; definitions: UsedDefinition[]; has_percentiles: boolean;
  hidden: Hidden[]; series_left_out: number; reason: { code: string; sentence: string } | null;
}
export interface DistributionSeries {
  name: string; group: Record<string, string>; totals: Totals; dates: number;
  first_date: string | null; last_date: string | null; percentiles: Record<string, number>;
  counts: number[]; weights: number[]; shares: number[];
}
export interface Distribution extends Answer {
  buckets: Bucket[]; series: DistributionSeries[]; trimmed: { buckets: number; samples: number };
}
export interface EvolutionSeries {
  name: string; group: Record<string, string>; totals: Totals;
  pings: (number | null)[]; clients: (number | null)[]; samples: (number | null)[]; means: (number | null)[];
  percentiles: Record<string, (number | null)[]>; shares: Record<string, (number | null)[]>;
}
export interface Evolution extends Answer {
  dates: string[]; series: EvolutionSeries[]; undated_pings: number; marks: { date: string; version: string }[];
}
export interface Keys {
  keys: { key: string; pings: number; samples: number }[];
  rest: { pings: number; samples: number; keys: number | null } | null;
}
